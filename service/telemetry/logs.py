"""Logs: past-tense events with fields, for people on a terminal and as JSON lines everywhere else.

What the libraries log through `logging` takes the same road, so that one reader reads all.
"""

import logging
import sys

import structlog
from opentelemetry.trace import format_trace_id, get_current_span
from structlog.typing import EventDict, Processor, WrappedLogger

QUIET_LOGGERS = ("alembic", "uvicorn.error", "asyncio", "botocore", "boto3", "s3transfer", "urllib3")
"""They tell their routine at INFO."""


def _add_trace_id(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    span = get_current_span().get_span_context()
    return {**event, "trace_id": format_trace_id(span.trace_id)} if span.is_valid else event


SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    _add_trace_id,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logging(*, for_people: bool | None = None) -> None:
    """Send all logs to standard error; `for_people` is whether that is a terminal, unless told."""
    ending = _ending(for_people=sys.stderr.isatty() if for_people is None else for_people)
    structlog.configure(
        processors=[*SHARED, *ending],
        # Not through `logging`: a line would cost twice as much, and each request has one.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
            foreign_pre_chain=list(SHARED),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _ending(*, for_people: bool) -> list[Processor]:
    if for_people:
        # Not rich's tracebacks: they show every local variable, and some of these are keys.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
