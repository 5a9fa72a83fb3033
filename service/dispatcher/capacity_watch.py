"""Look at the cluster now and then though nothing waits, so that what it had is remembered when a node of it goes.

A round of claims looks, too; but while the queue is empty for days a lost node would else be one that never was.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from service.backends.backend import BackendUnavailable, Capacity
from service.db.cluster import NOTED_AGAIN, ClusterRepository
from service.db.locks import Lock, take_lock
from service.dispatcher.backoff import has_come
from service.dispatcher.context import DispatchContext

RETRY = timedelta(seconds=10)
"""After a look that found no cluster."""


def look_at_cluster(context: DispatchContext) -> Capacity:
    """Note what the cluster has; return the most that it had of late. Raises: BackendUnavailable."""
    capacity = context.backend.capacity()
    with context.database.write() as session:
        take_lock(session, Lock.QUEUE)
        return note_capacity(session, capacity, now=context.clock())


def note_capacity(session: Session, found: Capacity, *, now: datetime) -> Capacity:
    """Note what was found; return the most that there was of late. Under `Lock.QUEUE`."""
    gpus, cpus = ClusterRepository(session).note_capacity(gpus=found.gpus, cpus=found.cpus, now=now)
    return Capacity(cpus=cpus, gpus=gpus)


class CapacityWatch:
    """When it looks next is kept in memory: after a restart at once."""

    def __init__(self, context: DispatchContext) -> None:
        self._context = context
        self._due_at: datetime | None = None

    def look_if_due(self) -> None:
        """A cluster that is away is looked for again later: while nothing waits, nobody misses it."""
        now = self._context.clock()
        if self._due_at is not None and not has_come(self._due_at, now=now, longest_wait_s=NOTED_AGAIN.total_seconds()):
            return
        self._due_at = now + RETRY
        with suppress(BackendUnavailable):
            look_at_cluster(self._context)
            self._due_at = now + NOTED_AGAIN
