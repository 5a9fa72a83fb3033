"""What a user may do to a job that exists: cancel it, pause it, let it go on.

Each takes effect at once: the status says so before the run has stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from schemas.fine_tuning import FineTuningJob, JobStatus
from schemas.ids import JobId, ProjectId
from service.clock import Clock
from service.db.engine import Database
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.leases import FREE
from service.db.tables import JobRow
from service.jobs import lifecycle
from service.jobs.job_errors import JobAlreadyEnded, JobAlreadyPaused, JobNotPaused
from service.jobs.presentation import present_job
from service.jobs.queries import require_job
from service.jobs.quotas import check_place_in_queue
from service.webhooks.outbox import tell_endpoints

WAITING: frozenset[JobStatus] = frozenset({"validating_files", "queued"})
"""What `max_queued_jobs` counts."""


@dataclass(frozen=True, slots=True)
class _Move:
    to: JobStatus
    message: str
    changes: dict[str, Any]


_Decide = Callable[[JobRow, JobStatus, datetime], _Move]
"""From the job and its status to where it goes. Raises: Conflict, when it cannot."""


def cancel_job(project_id: ProjectId, job_id: str, *, database: Database, clock: Clock) -> FineTuningJob:
    """End the job; its run can publish nothing any more. Raises: JobNotFound, JobAlreadyEnded."""
    return _move(project_id, job_id, _cancel, database=database, clock=clock)


def pause_job(project_id: ProjectId, job_id: str, *, database: Database, clock: Clock) -> FineTuningJob:
    """Hold the job; its run stops at the next step and leaves a checkpoint.

    Raises: JobNotFound, JobAlreadyEnded, JobAlreadyPaused.
    """
    return _move(project_id, job_id, _pause, database=database, clock=clock)


def resume_job(project_id: ProjectId, job_id: str, *, database: Database, clock: Clock) -> FineTuningJob:
    """Put a paused job back into the queue. Raises: JobNotFound, JobAlreadyEnded, JobNotPaused, QuotaExceeded."""
    return _move(project_id, job_id, _resume, database=database, clock=clock)


def _cancel(job: JobRow, seen: JobStatus, now: datetime) -> _Move:
    _refuse_ended(job, seen)
    return _Move("cancelled", "The job has been cancelled", {"finished_at": now, "estimated_finish_at": None})


def _pause(job: JobRow, seen: JobStatus, _now: datetime) -> _Move:
    _refuse_ended(job, seen)
    if seen == "paused":
        raise JobAlreadyPaused(f"The job {job.id} is paused already; resume it to go on, or cancel it")
    return _Move("paused", "The job has been paused", {"estimated_finish_at": None, "preempting_since": None})


def _resume(job: JobRow, seen: JobStatus, _now: datetime) -> _Move:
    _refuse_ended(job, seen)
    if seen != "paused":
        raise JobNotPaused(f'The job {job.id} is not paused: its status is "{seen}"; there is nothing to resume')
    is_validated = job.training_pairs is not None
    return _Move("queued" if is_validated else "validating_files", "The job has been resumed", {})


def _refuse_ended(job: JobRow, seen: JobStatus) -> None:
    if lifecycle.is_terminal(seen):
        raise JobAlreadyEnded(f'The job {job.id} has ended already: its status is "{seen}", and stays')


def _move(project_id: ProjectId, job_id: str, decide: _Decide, *, database: Database, clock: Clock) -> FineTuningJob:
    """Try until no other writer comes between look and change, which happens a few times at most."""
    while True:
        with database.write() as session:
            job = require_job(session, project_id, job_id)
            moved = _try_move(session, job, decide, now=clock())
        if moved is not None:
            return moved


def _try_move(session: Session, job: JobRow, decide: _Decide, *, now: datetime) -> FineTuningJob | None:
    seen = lifecycle.parse_status(job.status)
    move = decide(job, seen, now)
    to = lifecycle.advance(seen, move.to)
    if to in WAITING:
        check_place_in_queue(session, ProjectId(job.project_id))
        session.refresh(job)  # under the quota's lock nobody else resumes it, and a claim is not waited for
        if job.status != seen:
            return None
    # Nobody looks again at a validation that its user ended: its lease would be renewed for ever.
    lease = FREE if seen == "validating_files" else {}
    if not JobRepository(session).advance(JobId(job.id), seen=seen, to=to, changes=move.changes | lease):
        return None
    # A job may be paused and resumed many times, and its version rises each time.
    event = NewEvent(f"job:{to}:{job.version}", now, "info", move.message)
    EventRepository(session).append(JobId(job.id), [event])
    tell_endpoints(session, ProjectId(job.project_id), job.id, status=to, now=now)
    session.refresh(job)
    return present_job(job)
