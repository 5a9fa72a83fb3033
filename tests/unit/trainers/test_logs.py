"""A run's log: JSON with the run's ids for machines, text for people, and no line outside of it."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_runs import make_run
from trainers.errors import RunStopped
from trainers.events import EventLog, message, warning
from trainers.logs import configure_logging, log_event, name_run
from trainers.run_folder import RunFolder

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("trainers")
    before = root.handlers, root.level, ours.level
    yield
    root.handlers, root.level, ours.level = before
    logging.captureWarnings(False)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_line_names_run_job_and_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    spec = make_run(tmp_path / "run", tmp_path, traceparent=f"00-{TRACE_ID}-b7ad6b7169203331-01")
    configure_logging(stream := io.StringIO())
    name_run(spec)
    log_event(logging.getLogger("trainers"), "run_started", steps=3)
    [line] = lines_of(stream)
    assert line.pop("timestamp").endswith("Z")
    ids = {"run_id": spec.run_id, "job_id": spec.job_id, "trace_id": TRACE_ID, "rank": 1}
    assert line == {"event": "run_started", "steps": 3, "level": "info", **ids}


def test_what_is_told_to_the_user_is_logged_too(tmp_path: Path) -> None:
    configure_logging(stream := io.StringIO())
    events = EventLog(RunFolder(str(tmp_path)), is_writer=True)
    events.tell(message("started", "Training on 4 pairs"))
    events.tell(warning("memory", "Out of memory"))
    EventLog(RunFolder(str(tmp_path)), is_writer=False).tell(message("started", "by another worker"))
    told = [(line["event"], line["key"], line["message"], line["level"]) for line in lines_of(stream)]
    assert told == [
        ("run_told", "started", "Training on 4 pairs", "info"),
        ("run_told", "memory", "Out of memory", "warning"),
    ]


def test_an_error_is_one_line_with_its_traceback() -> None:
    configure_logging(stream := io.StringIO())
    try:
        raise RunStopped("after step 3")
    except RunStopped:
        logging.getLogger("trainers").exception("run_failed")
    [line] = lines_of(stream)
    assert line["exception"].splitlines()[-1] == "trainers.errors.RunStopped: after step 3"


def test_libraries_and_warnings_take_the_same_road() -> None:
    configure_logging(stream := io.StringIO())
    logging.getLogger("peft").info("their routine")
    logging.getLogger("peft").warning("odd")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    odd, old = lines_of(stream)
    assert odd["event"] == "odd"
    assert "UserWarning: old" in old["event"]


def test_people_read_text() -> None:
    configure_logging(stream := Terminal())
    log_event(logging.getLogger("trainers"), "run_finished", outcome="succeeded")
    assert stream.getvalue().rstrip().endswith(" run_finished outcome=succeeded")
