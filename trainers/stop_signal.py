"""SIGTERM asks a run to stop: the loop looks at the flag between two steps, and between the passes of an evaluation.

The workers of a Ray Train group get no signal, their driver does: it leaves a mark in the run folder.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.run_layout import STOP
from trainers.run_folder import RunFolder

LOOK_EVERY_S = 1.0


class StopRequested(Exception):
    """A worker was asked to stop: what was under way is given up on all of them."""


class StopSignal:
    """Asked by a signal."""

    def __init__(self) -> None:
        self._is_requested = False

    @property
    def is_requested(self) -> bool:
        return self._is_requested

    def request(self, _signal: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        self._is_requested = True


class StopMark(StopSignal):
    """Asked by the mark in the run folder, which is looked for once a second at most."""

    def __init__(self, folder: RunFolder, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._folder = folder
        self._clock = clock
        self._looked_at = -math.inf

    @property
    def is_requested(self) -> bool:
        now = self._clock()
        if not self._is_requested and now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._is_requested = self._folder.exists(STOP)
        return self._is_requested


@contextmanager
def listening_for_stop(folder: RunFolder) -> Iterator[StopSignal]:
    """Listen while the context lasts: to SIGTERM, or, off the main thread, as Ray Train's workers are, for the mark."""
    if threading.current_thread() is not threading.main_thread():
        yield StopMark(folder)
        return
    stop = StopSignal()
    previous = signal.signal(signal.SIGTERM, stop.request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)


def mark_stop_on_sigterm(folder: RunFolder) -> None:
    """For a driver: from now on SIGTERM leaves the mark."""
    signal.signal(signal.SIGTERM, lambda _signal, _frame: folder.write(STOP, b""))
