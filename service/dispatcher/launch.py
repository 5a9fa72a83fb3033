"""Claim a queued job, and launch a claimed run: two steps, so that a crash between them is only a pause.

Claim and run row are one transaction. Spec and submission then follow under the run's id as often as it takes:
an open run without `submitted_at` is written and submitted again, and the backend knows the repeat by its id.
"""

from sqlalchemy.orm import Session

from schemas.ids import JobId, RunId
from schemas.run_layout import SPEC, run_prefix
from service.backends.backend import Capacity, RunRequest
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.runs import RunRepository
from service.db.tables import JobRow, RunRow
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.files_of_job import FileGone
from service.dispatcher.model_of_job import ModelGone, find_model
from service.dispatcher.requirements import Requirements, has_room, refuse_reason, resolve_requirements
from service.dispatcher.run_rows import add_run
from service.dispatcher.run_specs import build_run_spec, run_folder_uri
from service.dispatcher.transitions import fail_job


class _OtherJobClaimed(Exception):
    """Between look and claim another dispatcher took the job that was looked at."""


def claim_next_job(context: DispatchContext) -> bool:
    """Claim the oldest queued job when the cluster has room for it. False: nothing to do.

    Raises: BackendUnavailable.
    """
    with context.database.read() as session:
        oldest = JobRepository(session).find_claimable()
    if oldest is None:
        return False
    capacity = context.backend.capacity()
    with context.database.read() as session:
        plan = _plan(session, context, oldest, capacity)
    if isinstance(plan, JobFailure):
        return _fail_queued(context, oldest, plan)
    return plan and _claim(context, JobId(oldest.id))


def launch_run(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Write the spec, submit, mark submitted. Raises: BackendUnavailable."""
    job_id, run_id = JobId(job.id), RunId(run.id)
    try:
        with context.database.read() as session:
            spec = build_run_spec(session, context, job, run)
    except (FileGone, ModelGone) as gone:
        _fail_running(context, job, gone.failure)
        return
    context.store.write(f"{run_prefix(job_id, run_id)}/{SPEC}", [spec.model_dump_json(indent=2).encode()])
    folder_uri = run_folder_uri(context.store, job_id, run_id)
    context.backend.submit(RunRequest(run_id, folder_uri, spec.workers, spec.gpus_per_worker))
    with context.database.write() as session:
        RunRepository(session).mark_submitted(run_id, now=context.clock())


def _plan(session: Session, context: DispatchContext, job: JobRow, capacity: Capacity) -> bool | JobFailure:
    """Whether the job may start now, or why it never can."""
    try:
        needed = resolve_requirements(job, find_model(session, job, context.registry).entry)
    except ModelGone as gone:
        return gone.failure
    return refuse_reason(needed, capacity) or has_room(needed, _open_requirements(session, context), capacity)


def _open_requirements(session: Session, context: DispatchContext) -> list[Requirements]:
    found: list[Requirements] = []
    for run in RunRepository(session).list_open():
        job = JobRepository(session).find_any(JobId(run.job_id))
        if job is None:
            continue
        try:
            found.append(resolve_requirements(job, find_model(session, job, context.registry).entry))
        except ModelGone:
            found.append(Requirements(workers=1, gpus_per_worker=0))
    return found


def _claim(context: DispatchContext, expected: JobId) -> bool:
    now = context.clock()
    try:
        with context.database.write() as session:
            job = JobRepository(session).claim_next(now=now)
            if job is None or job.id != expected:
                raise _OtherJobClaimed  # rolls the claim back: room was looked for on behalf of another job
            add_run(session, expected, attempt=job.attempt, now=now)
            EventRepository(session).append(expected, [NewEvent("job:running", now, "info", "Fine-tuning job started")])
    except _OtherJobClaimed:
        return False
    return True


def _fail_queued(context: DispatchContext, job: JobRow, failure: JobFailure) -> bool:
    with context.database.write() as session:
        return fail_job(session, job, seen="queued", failure=failure, now=context.clock())


def _fail_running(context: DispatchContext, job: JobRow, failure: JobFailure) -> None:
    with context.database.write() as session:
        fail_job(session, job, seen="running", failure=failure, now=context.clock())
