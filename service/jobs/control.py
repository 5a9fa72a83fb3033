"""What a user may do to a job that exists: cancel it."""

from schemas.fine_tuning import FineTuningJob
from schemas.ids import JobId, ProjectId
from service.clock import Clock
from service.db.engine import Database
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.jobs import lifecycle
from service.jobs.job_errors import JobAlreadyEnded
from service.jobs.presentation import present_job
from service.jobs.queries import require_job


def cancel_job(project_id: ProjectId, job_id: str, *, database: Database, clock: Clock) -> FineTuningJob:
    """Cancel at once: the status says so before the run has stopped, which can publish nothing any more.

    Raises: JobNotFound, JobAlreadyEnded.
    """
    while True:
        cancelled = _try_cancel(project_id, job_id, database=database, clock=clock)
        if cancelled is not None:
            return cancelled


def _try_cancel(project_id: ProjectId, job_id: str, *, database: Database, clock: Clock) -> FineTuningJob | None:
    """None when the status changed between look and change, which it can at most twice."""
    with database.write() as session:
        job = require_job(session, project_id, job_id)
        seen = lifecycle.parse_status(job.status)
        if lifecycle.is_terminal(seen):
            raise JobAlreadyEnded(f'The job {job.id} has ended already: its status is "{seen}", and stays')
        now = clock()
        to = lifecycle.advance(seen, "cancelled")
        changes = {"finished_at": now, "estimated_finish_at": None}
        if not JobRepository(session).advance(JobId(job.id), seen=seen, to=to, changes=changes):
            return None
        event = NewEvent("job:cancelled", now, "info", "The job has been cancelled")
        EventRepository(session).append(JobId(job.id), [event])
        session.refresh(job)
        return present_job(job)
