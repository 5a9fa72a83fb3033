"""Measure each project's stored bytes once an hour: what lay there on a day cannot be told afterwards."""

import threading
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.ids import ProjectId
from service.clock import Clock
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.db.usage import UsageRepository

log = structlog.get_logger()

PERIOD = timedelta(hours=1)
LOOK_S = 5.0


class Meter:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._measured_at: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Measure until told to stop. Any number of processes may: the day keeps the latest figure."""
        while not stop.is_set():
            self.measure_due()
            stop.wait(LOOK_S)

    def measure_due(self) -> None:
        now = self._clock()
        if self._measured_at is not None and timedelta(0) <= now - self._measured_at < PERIOD:
            return
        self._measured_at = now
        try:
            measure_stored_bytes(self._database, now=now)
        except SQLAlchemyError:
            log.exception("stored_bytes_not_measured")


def measure_stored_bytes(database: Database, *, now: datetime) -> None:
    """One transaction a project: the sums take their time."""
    with database.read() as session:
        project_ids = ProjectRepository(session).list_ids()
    for project_id in project_ids:
        _measure(database, project_id, now=now)


def _measure(database: Database, project_id: ProjectId, *, now: datetime) -> None:
    with database.read() as session:
        stored = UsageRepository(session).measure_stored_bytes(project_id, now=now)
    with database.write() as session:
        ProjectRepository(session).lock(project_id)  # two processes at once must not both add the day's first figure
        UsageRepository(session).note_stored_bytes(project_id, day=now.date(), stored_bytes=stored)
