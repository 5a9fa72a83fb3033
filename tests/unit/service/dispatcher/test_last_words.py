"""What a lost run's message ends with, whatever its log's last line is."""

import json

import pytest

from service.dispatcher.last_words import last_words

TRACEBACK = "Traceback (most recent call last):\n  File x\nRuntimeError: no room"


@pytest.mark.parametrize(
    ("log_tail", "said"),
    [
        ("", ""),
        ("first\nKilled\n\n", "Killed"),
        (json.dumps({"event": "run_failed", "exception": TRACEBACK}), "RuntimeError: no room"),
        (json.dumps({"event": "run_told", "message": "Step 3/4: training loss 0.5"}), "Step 3/4: training loss 0.5"),
        (json.dumps({"event": "run_started"}), "run_started"),
        ("17", "17"),
        ('{"event": "cut o', '{"event": "cut o'),
    ],
    ids=["nothing", "plain", "a traceback", "an event told", "an event", "a number", "half a line"],
)
def test_the_log_ends_with(log_tail: str, said: str) -> None:
    assert last_words(log_tail) == said
