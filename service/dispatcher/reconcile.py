"""Make one open run, its job's row and the backend agree.

The order of looking matters. The status comes first and `outcome.json` second: a run seen ended has written by then
whatever it ever will. The chunks come last: the outcome is written after them, so an outcome seen means all are there.
"""

from pydantic import ValidationError

from schemas.ids import JobId, RunId
from schemas.run_layout import OUTCOME, run_prefix
from schemas.run_record import Outcome
from service.backends.backend import RunState, RunStatus
from service.db.tables import JobRow, RunRow
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.ingest import ingest_chunks
from service.dispatcher.leases import fenced_write
from service.dispatcher.run_rows import PREEMPTED, STOPPED_FOR_PAUSE, end_run
from service.dispatcher.settle import settle_interrupted, settle_lost, settle_outcome
from service.dispatcher.transitions import fail_job

GONE = frozenset({RunState.ENDED, RunState.UNKNOWN})
HELD = frozenset({"paused", "queued"})
"""Of a job that was paused or preempted, and may be resumed already, while its run still stops."""


class DamagedOutcome(ValueError):
    """`outcome.json` is there and cannot be read."""


def reconcile_run(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Move a run that is not to be launched, and its job, as far as they go now.

    Raises: BackendUnavailable; LeaseLost.
    """
    if job.attempt == run.attempt and job.status in HELD:
        _hold(context, job, run)
    elif job.status != "running" or job.attempt != run.attempt:
        _wind_down(context, job, run)
    elif run.submitted_at is not None:
        _follow(context, job, run)


def interrupt_run(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Close a run that the service ended together with its backend; one that had finished is left to be published."""
    is_current = job.status == "running" and job.attempt == run.attempt
    if not is_current or run.submitted_at is None or _read_outcome(context, job, run) is not None:
        return
    ingest_chunks(context, job, run)
    settle_interrupted(context, job, run)


def _follow(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    run_id, now = RunId(run.id), context.clock()
    status = context.backend.status(run_id)
    if status.state not in GONE and not context.polls.is_due(run_id, now=now):
        return
    try:
        outcome = _read_outcome(context, job, run)
    except DamagedOutcome as error:
        with fenced_write(context, JobId(job.id)) as session:
            failure = JobFailure("damaged_outcome", str(error))
            fail_job(session, job, seen="running", failure=failure, now=context.clock())
        return
    has_news = ingest_chunks(context, job, run)
    if outcome is not None:
        settle_outcome(context, job, run, outcome)
    elif status.state in GONE:
        _settle_lost(context, job, run, status)
    else:
        context.polls.note_look(run_id, has_news=has_news, now=now)
        return
    context.polls.forget(run_id)


def _settle_lost(context: DispatchContext, job: JobRow, run: RunRow, status: RunStatus) -> None:
    known = status.state is RunState.ENDED
    log_tail = context.backend.log_tail(RunId(run.id)) if known else ""
    settle_lost(context, job, run, detail=status.detail, log_tail=log_tail)


def _hold(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Stop a run at its next step, and take what it tells up to the checkpoint that it leaves there."""
    run_id = RunId(run.id)
    status = context.backend.status(run_id)
    ingest_chunks(context, job, run)
    if status.state not in GONE:
        context.backend.stop(run_id)
        return
    with fenced_write(context, JobId(job.id)) as session:
        end_run(session, context, job, run, reason=PREEMPTED if run.preempted_by else STOPPED_FOR_PAUSE)


def _wind_down(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Stop a run that may publish nothing any more, and close it once its processes are gone."""
    run_id = RunId(run.id)
    status = context.backend.status(run_id)
    if status.state not in GONE:
        context.backend.stop(run_id)
        return
    with fenced_write(context, JobId(run.job_id)) as session:
        end_run(session, context, job, run, reason=status.detail or status.state.value)


def _read_outcome(context: DispatchContext, job: JobRow, run: RunRow) -> Outcome | None:
    """Raises: DamagedOutcome."""
    key = f"{run_prefix(JobId(job.id), RunId(run.id))}/{OUTCOME}"
    try:
        return Outcome.model_validate_json(context.store.read(key))
    except LookupError:
        return None
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise DamagedOutcome(f"{key} cannot be read ({first}); the trainer and the service may differ") from error
