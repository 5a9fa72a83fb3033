"""Launch claimed runs: spec and submission follow the claim under the run's id, as often as it takes.

An open run without `submitted_at` is written and submitted again, and the backend knows the repeat by its id. The
database is asked and told for some runs at once: one by one it costs more than all the rest.
"""

from collections.abc import Collection, Sequence

import structlog

from schemas.ids import JobId, RunId
from schemas.run_layout import SPEC, run_prefix
from service.backends.backend import RunRequest
from service.db.jobs import JobRepository
from service.db.runs import OpenRun, RunRepository
from service.db.tables import JobRow, RunRow
from service.dispatcher.backoff import has_come
from service.dispatcher.context import DispatchContext
from service.dispatcher.files_of_job import FileGone, find_files
from service.dispatcher.job_request import UnreadableRequest
from service.dispatcher.leases import fenced_write, leases_of
from service.dispatcher.model_of_job import ModelGone
from service.dispatcher.run_specs import SpecRows, build_run_spec, read_spec_rows, run_folder_uri
from service.dispatcher.settle import LONGEST_ATTEMPT_DELAY_S
from service.dispatcher.steps import observed
from service.dispatcher.transitions import fail_job

log = structlog.get_logger()

LAUNCHES_AT_ONCE = 20
"""No transaction can fence the calls to store and cluster: what they go by may not grow old."""


def is_to_launch(context: DispatchContext, open_run: OpenRun) -> bool:
    job, run = open_run.job, open_run.run
    if job.status != "running" or job.attempt != run.attempt:
        return False
    if run.submitted_at is not None or run.admitted_at is None:
        return False
    return run.launch_at is None or has_come(run.launch_at, now=context.clock(), longest_wait_s=LONGEST_ATTEMPT_DELAY_S)


def look_before_launch(context: DispatchContext, runs: Sequence[RunRow]) -> list[SpecRows]:
    """Read what the specs are made of; runs whose job has moved or is another dispatcher's by now are left out."""
    with context.database.read() as session:
        found = {job.id: job for job in JobRepository(session).list_any([JobId(run.job_id) for run in runs])}
        both = [(job, run) for run in runs if (job := found.get(run.job_id)) and _is_as_claimed(context, job, run)]
        files = find_files(session, [job for job, _ in both], now=context.clock())
        return [read_spec_rows(session, job, run, files, context.registry) for job, run in both]


@observed("launch")
def start_run(context: DispatchContext, job: JobRow, run: RunRow, rows: SpecRows) -> bool:
    """Write the spec and submit. False: the job has failed, by what it names or asks for.

    Raises: BackendUnavailable; LeaseLost.
    """
    job_id, run_id = JobId(job.id), RunId(run.id)
    try:
        spec = build_run_spec(rows, context.store, context.registry)
    except (FileGone, ModelGone, UnreadableRequest) as error:
        with fenced_write(context, job_id) as session:
            fail_job(session, job, seen="running", failure=error.failure, now=context.clock())
        return False
    context.store.write(f"{run_prefix(job_id, run_id)}/{SPEC}", [spec.model_dump_json(indent=2).encode()])
    folder_uri = run_folder_uri(context.store, job_id, run_id)
    context.backend.submit(RunRequest(run_id, folder_uri, spec.workers, spec.gpus_per_worker))
    log.info("run_launched", attempt=run.attempt)
    return True


def mark_submitted(context: DispatchContext, tried: Sequence[RunRow], started: Collection[RunId]) -> list[RunId]:
    """Note which of those that were tried were submitted, so that their status is asked for from now on.

    Returns: the runs whose jobs are another dispatcher's by now; the cluster may have got them from us all the same.
    """
    with context.database.write() as session:
        held = leases_of(session, context).hold_all([JobId(run.job_id) for run in tried])
        submitted = [RunId(run.id) for run in tried if run.job_id in held and run.id in started]
        RunRepository(session).mark_submitted(submitted, now=context.clock())
    return [RunId(run.id) for run in tried if run.job_id not in held]


def stop_if_ended(context: DispatchContext, run_id: RunId) -> None:
    """A new owner may have closed the run before our late submission woke it again. Raises: BackendUnavailable."""
    with context.database.read() as session:
        run = RunRepository(session).find(run_id)
    if run is None or run.ended_at is not None:
        context.backend.stop(run_id)


def _is_as_claimed(context: DispatchContext, job: JobRow, run: RunRow) -> bool:
    return job.lease_owner == context.dispatcher_id and job.status == "running" and job.attempt == run.attempt
