"""SIGTERM asks a run to stop: the loop looks at the flag between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    def __init__(self) -> None:
        self.is_requested = False

    def request(self, _signal: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        self.is_requested = True


@contextmanager
def listening_for_stop() -> Iterator[StopSignal]:
    """Turn SIGTERM into a flag while the context lasts; off the main thread nobody can listen."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.signal(signal.SIGTERM, stop.request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
