"""The sweeper: every minute what has expired and what ended jobs no longer need, every few hours what is orphaned or
half-written, and nothing else.

Any number may run beside each other: each removal is the same whoever does it.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from service.clock import Clock
from service.db.engine import Database
from service.retention.expired import (
    sweep_expired_files,
    sweep_expired_uploads,
    sweep_old_answers,
    sweep_old_deliveries,
    sweep_old_uploads,
    sweep_parts,
)
from service.retention.orphans import sweep_leftovers, sweep_orphans
from service.retention.run_folders import sweep_run_folders
from service.storage.object_store import ObjectStore

log = structlog.get_logger()

Sweep = Callable[..., int]

PERIODS: dict[Sweep, timedelta] = {
    sweep_expired_files: timedelta(minutes=1),
    sweep_expired_uploads: timedelta(minutes=1),
    sweep_parts: timedelta(minutes=1),
    sweep_old_uploads: timedelta(minutes=10),
    sweep_old_deliveries: timedelta(minutes=10),
    sweep_old_answers: timedelta(minutes=1),
    sweep_run_folders: timedelta(minutes=1),
    sweep_orphans: timedelta(hours=6),
    sweep_leftovers: timedelta(hours=6),
}
THOROUGH: frozenset[Sweep] = frozenset({sweep_orphans, sweep_leftovers})
"""Each goes through the whole store; the others do a batch, and come again at once as long as that was not empty."""
LOOK_S = 5.0


class Sweeper:
    def __init__(self, database: Database, store: ObjectStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._due: dict[Sweep, datetime] = {}
        """When each is next due; absent: now."""

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop."""
        while not stop.is_set():
            if not self.sweep_due():
                stop.wait(LOOK_S)

    def sweep_due(self) -> bool:
        """Do what is due now; True: more is. A sweep that fails is logged and comes again at its next time."""
        now, has_more = self._clock(), False
        for sweep, period in PERIODS.items():
            if not now < self._due.get(sweep, now) <= now + period:  # later than that: the clock has been set back
                count = self._sweep(sweep, now=now)
                comes_again = count > 0 and sweep not in THOROUGH
                self._due[sweep] = now if comes_again else now + period
                has_more = has_more or comes_again
        return has_more

    def _sweep(self, sweep: Sweep, *, now: datetime) -> int:
        try:
            count = sweep(self._database, self._store, now=now)
        except Exception:
            log.exception("sweep_failed", sweep=sweep.__name__)
            return 0
        if count:
            log.info("swept", sweep=sweep.__name__, count=count)
        return count
