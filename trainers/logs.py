"""A run's log on standard output: a line of JSON for each event, with the run's ids; for people on a terminal, text.

Plain `logging`: what the libraries log and warn takes the same road, and a cluster's image needs nothing more for it.
"""

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from schemas.run_spec import RunSpec

Fields = dict[str, object]

_ids: ContextVar[Fields] = ContextVar("run_ids", default={})  # noqa: B039  # replaced, never changed


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
            **_ids.get(),
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} {record.getMessage()} {told}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(stream: TextIO | None = None) -> None:
    """Send this process's log to `stream`; standard output, unless told."""
    stream = stream or sys.stdout
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextLines() if stream.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("trainers").setLevel(logging.INFO)
    logging.captureWarnings(True)


def name_run(spec: RunSpec) -> None:
    """Let each line from here on name the run, its job and the trace of the request that made it."""
    ids: Fields = {"run_id": spec.run_id, "job_id": spec.job_id}
    if spec.traceparent is not None:
        ids["trace_id"] = spec.traceparent.split("-")[1]
    if "RANK" in os.environ:
        ids["rank"] = int(os.environ["RANK"])
    _ids.set(ids)


def log_event(logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log a past-tense event with its fields."""
    logger.log(level, event, extra={"fields": fields})
