"""Read jobs, their events and their checkpoints. Polling costs the database alone."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from schemas.fine_tuning import Checkpoint, FineTuningJob, JobEvent
from schemas.ids import JobId, ProjectId
from schemas.pages import BoundedPage, Page, bounded_page
from service.cursors import unknown_cursor
from service.db.checkpoints import CheckpointRepository
from service.db.engine import Database
from service.db.events import EventRepository
from service.db.jobs import JobRepository
from service.db.tables import JobRow
from service.jobs.job_errors import JobNotFound
from service.jobs.presentation import job_etag, present_checkpoint, present_event, present_job
from service.nearest import shown


@dataclass(frozen=True, slots=True)
class TaggedJob:
    etag: str
    wire_object: FineTuningJob


@dataclass(frozen=True, slots=True)
class JobFilter:
    metadata: dict[str, str]
    without_metadata: bool


def require_job(session: Session, project_id: ProjectId, job_id: str) -> JobRow:
    """Raises: JobNotFound, also for a job of another project: what exists there must not leak."""
    job = JobRepository(session).find(project_id, job_id)
    if job is None:
        raise _not_found(job_id)
    return job


def etag_of_version(job_id: str, version: int | None) -> str:
    """What `find_job` would tell; `version` is None where there is no such job. Raises: JobNotFound."""
    if version is None:
        raise _not_found(job_id)
    return job_etag(job_id, version)


def find_job(project_id: ProjectId, job_id: str, *, database: Database) -> TaggedJob:
    with database.read() as session:
        job = require_job(session, project_id, job_id)
        return TaggedJob(job_etag(job.id, job.version), present_job(job))


def list_jobs(
    project_id: ProjectId, wanted: JobFilter, *, after: str | None, limit: int, database: Database
) -> Page[FineTuningJob]:
    with database.read() as session:
        jobs = JobRepository(session)
        if after is not None and jobs.find(project_id, after) is None:
            raise unknown_cursor(after, kind="job")
        rows = jobs.list_after(
            project_id,
            after=after,
            limit=limit + 1,
            metadata=wanted.metadata,
            without_metadata=wanted.without_metadata,
        )
    return Page(object="list", data=[present_job(row) for row in rows[:limit]], has_more=len(rows) > limit)


def list_events(
    project_id: ProjectId, job_id: str, *, after: str | None, limit: int, database: Database
) -> Page[JobEvent]:
    with database.read() as session:
        job = require_job(session, project_id, job_id)
        rows = EventRepository(session).list_after(JobId(job.id), after=after, limit=limit + 1)
    if rows is None:
        raise unknown_cursor(after or "", kind="event")
    return Page(object="list", data=[present_event(row) for row in rows[:limit]], has_more=len(rows) > limit)


def list_checkpoints(
    project_id: ProjectId, job_id: str, *, after: str | None, limit: int, database: Database
) -> BoundedPage[Checkpoint]:
    with database.read() as session:
        job = require_job(session, project_id, job_id)
        rows = CheckpointRepository(session).list_after(JobId(job.id), after=after, limit=limit + 1)
    if rows is None:
        raise unknown_cursor(after or "", kind="checkpoint")
    return bounded_page([present_checkpoint(row) for row in rows], limit=limit)


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"The job {shown(job_id)} does not exist; GET /v1/fine_tuning/jobs lists those that do")
