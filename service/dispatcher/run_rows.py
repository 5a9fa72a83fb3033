"""Runs as rows: a new attempt, and the reasons by which an ended one does not count."""

from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import JobId, run_id
from service.db.runs import RunRepository
from service.db.tables import RunRow

STOPPED_WITH_SERVICE = "stopped with the service"
STOPPED_FOR_PAUSE = "stopped for a pause"
NOT_LOST = frozenset({STOPPED_WITH_SERVICE, STOPPED_FOR_PAUSE})
"""What costs the job no attempt."""


def add_run(session: Session, job_id: JobId, *, attempt: int, now: datetime) -> None:
    """Add an attempt that is not submitted yet."""
    RunRepository(session).add(
        RunRow(
            id=run_id(job_id, attempt=attempt),
            job_id=job_id,
            attempt=attempt,
            created_at=now,
            submitted_at=None,
            ended_at=None,
            end_reason=None,
            chunks_ingested=0,
        )
    )
