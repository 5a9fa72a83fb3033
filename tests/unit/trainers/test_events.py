"""The event log: numbered chunks without a gap, written before a reader would miss them."""

from pathlib import Path

import pytest

from tests.tiny_runs import read_events
from trainers.events import EventLog, message, warning
from trainers.run_folder import RunFolder


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def chunks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("events/*"))


def test_slow_steps_are_written_one_by_one(tmp_path: Path, clock: Clock) -> None:
    events = EventLog(RunFolder(str(tmp_path)), is_writer=True, monotonic=clock)
    for step in range(3):
        clock.now += 2.0
        events.tell(message(f"step:{step}", ""))
    assert len(chunks(tmp_path)) == 3


def test_fast_steps_share_a_chunk_a_second(tmp_path: Path, clock: Clock) -> None:
    events = EventLog(RunFolder(str(tmp_path)), is_writer=True, monotonic=clock)
    for step in range(100):
        clock.now += 0.03
        events.tell(message(f"step:{step}", ""))
    events.flush()
    assert 3 <= len(chunks(tmp_path)) <= 5
    assert [event.key for event in read_events(tmp_path)] == [f"step:{step}" for step in range(100)]


def test_a_restart_goes_on_with_the_next_number(tmp_path: Path) -> None:
    for attempt in range(2):
        events = EventLog(RunFolder(str(tmp_path)), is_writer=True)
        events.tell(warning(f"started:{attempt}", "again"))
        events.flush()
        events.flush()
    assert chunks(tmp_path) == ["00000001.jsonl", "00000002.jsonl"]


def test_only_one_worker_writes(tmp_path: Path) -> None:
    events = EventLog(RunFolder(str(tmp_path)), is_writer=False)
    events.tell(message("started", ""))
    events.flush()
    assert chunks(tmp_path) == []
