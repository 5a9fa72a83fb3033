"""What happened, for whoever polls the job: numbered chunks of JSONL, each written once and never touched again."""

import logging
import time
from collections.abc import Callable

from schemas.run_layout import EVENTS, event_chunk
from schemas.run_record import RunEvent
from trainers.logs import log_event
from trainers.run_folder import RunFolder

log = logging.getLogger(__name__)

FLUSH_EVERY_S = 1.0


class EventLog:
    """Buffers events and writes a chunk before a reader would miss one for more than about a second.

    Chunk numbers go on where an earlier process left them in the same folder.
    """

    def __init__(self, folder: RunFolder, *, is_writer: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._is_writer = is_writer
        self._monotonic = monotonic
        self._next_chunk = len(folder.names(EVENTS)) + 1 if is_writer else 1
        self._buffer: list[RunEvent] = []
        self._flushed_at = self._told_at = self._monotonic()

    def tell(self, event: RunEvent) -> None:
        if not self._is_writer:
            return
        self._buffer.append(event)
        level = logging.INFO if event.level == "info" else logging.WARNING
        log_event(log, "run_told", level=level, key=event.key, message=event.message)
        now = self._monotonic()
        # The next event is as far away as the last one was: flush now when that would be too late.
        expected_next = now + (now - self._told_at)
        self._told_at = now
        if expected_next - self._flushed_at >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        self._flushed_at = self._monotonic()
        if not self._buffer:
            return
        lines = "".join(f"{event.model_dump_json(exclude_none=True)}\n" for event in self._buffer)
        self._folder.write(event_chunk(self._next_chunk), lines.encode())
        self._next_chunk += 1
        self._buffer.clear()


def message(key: str, text: str) -> RunEvent:
    return RunEvent(key=key, created_at=time.time(), level="info", message=text)


def warning(key: str, text: str) -> RunEvent:
    return RunEvent(key=key, created_at=time.time(), level="warn", message=text)


def stamped_now(event: RunEvent) -> RunEvent:
    """For what was found before its turn to be told: a reader sorts by the stamps."""
    return event.model_copy(update={"created_at": time.time()})
