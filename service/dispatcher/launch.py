"""Launch a claimed run: spec and submission follow the claim under the run's id, as often as it takes.

An open run without `submitted_at` is written and submitted again, and the backend knows the repeat by its id.
"""

import structlog

from schemas.ids import JobId, RunId
from schemas.run_layout import SPEC, run_prefix
from service.backends.backend import RunRequest
from service.db.jobs import JobRepository
from service.db.runs import RunRepository
from service.db.tables import JobRow, RunRow
from service.dispatcher.context import DispatchContext
from service.dispatcher.files_of_job import FileGone
from service.dispatcher.leases import LeaseLost, fenced_write
from service.dispatcher.model_of_job import ModelGone
from service.dispatcher.run_specs import build_run_spec, run_folder_uri
from service.dispatcher.steps import observed
from service.dispatcher.transitions import fail_job

log = structlog.get_logger()


@observed("launch")
def launch_run(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Write the spec, submit, mark submitted. Raises: BackendUnavailable; LeaseLost."""
    job_id, run_id = JobId(job.id), RunId(run.id)
    try:
        with context.database.read() as session:
            # No transaction can fence the calls that follow, so they begin with the newest look.
            now_job = JobRepository(session).find_any(job_id)
            if now_job is None or now_job.lease_owner != context.dispatcher_id:
                raise LeaseLost(job_id)
            if now_job.status != "running" or now_job.attempt != run.attempt:
                return
            spec = build_run_spec(session, context, now_job, run)
    except (FileGone, ModelGone) as gone:
        with fenced_write(context, job_id) as session:
            fail_job(session, job, seen="running", failure=gone.failure, now=context.clock())
        return
    context.store.write(f"{run_prefix(job_id, run_id)}/{SPEC}", [spec.model_dump_json(indent=2).encode()])
    folder_uri = run_folder_uri(context.store, job_id, run_id)
    context.backend.submit(RunRequest(run_id, folder_uri, spec.workers, spec.gpus_per_worker))
    try:
        with fenced_write(context, job_id) as session:
            RunRepository(session).mark_submitted(run_id, now=context.clock())
    except LeaseLost:
        _stop_if_ended(context, run_id)
        raise
    log.info("run_launched", attempt=run.attempt)


def _stop_if_ended(context: DispatchContext, run_id: RunId) -> None:
    """The new owner may have closed the run before our late submission woke it again."""
    with context.database.read() as session:
        run = RunRepository(session).find(run_id)
    if run is None or run.ended_at is not None:
        context.backend.stop(run_id)
