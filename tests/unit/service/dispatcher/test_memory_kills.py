"""Which losses of a run are told with what to do about memory."""

import pytest

from service.dispatcher.memory_kills import memory_remedy

RAYS = "(raylet) 1 worker(s) were killed due to the node running low on memory."


@pytest.mark.parametrize(
    ("cause", "log_tail", "is_of_memory"),
    [
        ("exit code 137", "", True),
        ("exit code -9", "", True),
        ("exit code 1", f"step 3\n{RAYS}\n", True),
        ("exit code 1", "MemoryError", False),
        ("exit code 143", "", False),
        ("the cluster no longer knows it", "", False),
    ],
)
def test_a_kill_for_memory_is_told_with_its_remedy(cause: str, log_tail: str, is_of_memory: bool) -> None:
    assert ("lower batch_size or max_length" in memory_remedy(cause, log_tail)) == is_of_memory
