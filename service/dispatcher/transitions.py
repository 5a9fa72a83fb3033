"""Status changes as the dispatcher makes them: the row and its event in one transaction, or neither.

Each takes an open writing session and returns False when the job is no longer what the caller saw.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from schemas.fine_tuning import JobStatus
from schemas.ids import JobId, ProjectId
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.tables import JobRow
from service.db.text import storable
from service.dispatcher.context import JobFailure
from service.jobs.lifecycle import advance
from service.webhooks.outbox import tell_endpoints

FAILED_EVENT_KEY = "job:failed"


def internal_error_message(what: str, error: Exception) -> str:
    """What the error says is for the log: it may tell of the cluster, or of other users."""
    return (
        f"The service could not {what} ({type(error).__name__}). It is not your data: give the operator this job's id, "
        "by which the service's log has the cause."
    )


def move_job(
    session: Session,
    job: JobRow,
    *,
    seen: JobStatus,
    to: JobStatus,
    events: list[NewEvent],
    changes: dict[str, Any] | None = None,
) -> bool:
    """Move the job from the status and attempt seen; a job that moved meanwhile, or is at another attempt, stays."""
    columns = {"status": advance(seen, to), **(changes or {})}
    jobs, job_id = JobRepository(session), JobId(job.id)
    if seen == "running":
        moved = jobs.update_running(job_id, attempt=job.attempt, changes=columns)
    else:
        moved = jobs.advance(job_id, seen=seen, to=to, changes=changes)
    if moved and events:
        EventRepository(session).append(job_id, events)
    if moved and "finished_at" in columns:
        tell_endpoints(session, ProjectId(job.project_id), job.id, status=to, now=columns["finished_at"])
    return moved


def fail_job(
    session: Session,
    job: JobRow,
    *,
    seen: JobStatus,
    failure: JobFailure,
    now: datetime,
    details: Sequence[NewEvent] = (),
) -> bool:
    """`details` are told before the failure itself."""
    changes = {
        "error_code": failure.code,
        "error_message": storable(failure.message),
        "error_param": failure.param,
        "finished_at": now,
        "estimated_finish_at": None,
    }
    event = NewEvent(FAILED_EVENT_KEY, now, "error", f"The job failed: {failure.message}")
    return move_job(session, job, seen=seen, to="failed", events=[*details, event], changes=changes)
