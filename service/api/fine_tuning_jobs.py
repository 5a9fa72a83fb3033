"""`/v1/fine_tuning/jobs`."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from schemas.fine_tuning import Checkpoint, CreateJobRequest, FineTuningJob, JobEvent
from schemas.pages import BoundedPage, Page
from service.api.auth import Project, ProjectAsker
from service.api.dependencies import App
from service.api.idempotency import IdempotencyKey, once_per_body
from service.api.job_bodies import JobBody
from service.api.json_bodies import JsonBody
from service.api.openapi import CONFLICT, CREATED_JOB, METADATA_FILTER, RESUMED_JOB, json_body
from service.api.pages import CheckpointsPage, EventsPage, JobsFilter, JobsPage
from service.jobs import control, queries
from service.jobs.submission import Submission, submit_job

PATH = "/fine_tuning/jobs"
router = APIRouter(prefix=PATH, tags=["fine-tuning"])


@router.post("", openapi_extra=json_body(CreateJobRequest), responses=CREATED_JOB)
def create_job(project: Project, app: App, key: IdempotencyKey, body: JsonBody, request: JobBody) -> FineTuningJob:
    """Submit a job; it waits for its files to be validated and then for its turn."""
    submission = Submission(project, request, once_per_body(project, key, path=PATH, body=body))
    return submit_job(submission, database=app.database, registry=app.registry, clock=app.clock)


@router.get("", openapi_extra=METADATA_FILTER)
def list_jobs(project: Project, app: App, page: JobsPage, wanted: JobsFilter) -> Page[FineTuningJob]:
    """List the project's jobs, newest first."""
    return queries.list_jobs(project, wanted, after=page.after, limit=page.limit, database=app.database)


@router.get("/{job_id}", response_model=FineTuningJob, responses={304: {"description": "Not changed since the ETag"}})
async def get_job(job_id: str, asker: ProjectAsker, app: App, request: Request) -> Response:
    """Poll a job; send its `ETag` back as `If-None-Match` to get an empty 304 while nothing changes."""
    project, version = await asker.open_project_of_job(job_id)
    answer = app.shown_jobs.answer(request, queries.etag_of_version(job_id, version))
    if answer is not None:
        return answer
    return app.shown_jobs.show(await run_in_threadpool(queries.find_job, project, job_id, database=app.database))


@router.post("/{job_id}/cancel", responses=CONFLICT)
def cancel_job(job_id: str, project: Project, app: App) -> FineTuningJob:
    """Cancel a job that has not ended; its status says so at once."""
    return control.cancel_job(project, job_id, database=app.database, clock=app.clock)


@router.post("/{job_id}/pause", responses=CONFLICT)
def pause_job(job_id: str, project: Project, app: App) -> FineTuningJob:
    """Hold a job; a running one stops at its next step and keeps a checkpoint. Its status says so at once."""
    return control.pause_job(project, job_id, database=app.database, clock=app.clock)


@router.post("/{job_id}/resume", responses=RESUMED_JOB)
def resume_job(job_id: str, project: Project, app: App) -> FineTuningJob:
    """Put a paused job back into the queue; it goes on from its newest checkpoint."""
    return control.resume_job(project, job_id, database=app.database, clock=app.clock)


@router.get("/{job_id}/events")
def list_events(job_id: str, project: Project, app: App, page: EventsPage) -> Page[JobEvent]:
    """List what happened, newest first; metrics events carry every number of a step."""
    return queries.list_events(project, job_id, after=page.after, limit=page.limit, database=app.database)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(job_id: str, project: Project, app: App, page: CheckpointsPage) -> BoundedPage[Checkpoint]:
    """List the checkpoints that are kept, newest first; each can be used as a model."""
    return queries.list_checkpoints(project, job_id, after=page.after, limit=page.limit, database=app.database)
