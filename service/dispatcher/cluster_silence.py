"""What waiting jobs are told of a cluster that has not answered for a while: else only the log says why none starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from service.backends.backend import BackendUnavailable
from service.db.jobs import JobRepository
from service.db.locks import Lock, take_lock
from service.db.queue import QueueRepository
from service.dispatcher.backoff import has_come
from service.dispatcher.context import DispatchContext
from service.dispatcher.waiting import tell_waits_for_cluster

TOLD_AFTER = timedelta(seconds=30)
"""Longer than a local Ray takes to come up at each start, and than two requests that run into their time limit."""
TOLD_AT_ONCE = 20
"""In one tick, as the queue is locked meanwhile; the next one goes on with the others."""


class ClusterSilence:
    """Since when the cluster is silent is kept in memory: a restarted dispatcher waits anew."""

    def __init__(self, context: DispatchContext) -> None:
        self._context = context
        self._since: datetime | None = None

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """For a claim, which asks the cluster while anything waits. Raises: BackendUnavailable, as the claim does."""
        try:
            yield
        except BackendUnavailable:
            now = self._context.clock()
            self._since = self._since or now
            if has_come(self._since + TOLD_AFTER, now=now, longest_wait_s=TOLD_AFTER.total_seconds()):
                self._tell(now)
            raise
        self._since = None

    def _tell(self, now: datetime) -> None:
        """As with room: each project's next job, and those behind it when they are next."""
        with self._context.database.read() as session:
            if not QueueRepository(session).list_untold_of_cluster(now=now, limit=1):
                return
        with self._context.database.write() as session:
            take_lock(session, Lock.QUEUE)
            untold = QueueRepository(session).list_untold_of_cluster(now=now, limit=TOLD_AT_ONCE)
            for job in JobRepository(session).list_any(untold):
                tell_waits_for_cluster(session, job, now=now)
