"""The end of a run: its results published, its failure told, or its loss made good by a next attempt.

Each is one transaction, fenced by the lease and by the job's status and attempt: done twice, the second changes
nothing.
"""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from schemas.ids import FileId, JobId, RunId
from schemas.run_layout import run_prefix
from schemas.run_record import Outcome, StoredFile
from service.db.events import EventRepository, NewEvent
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.runs import RunRepository
from service.db.tables import FileRow, JobRow, ModelRow, RunRow
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.last_words import last_words
from service.dispatcher.leases import fenced_write, leases_of
from service.dispatcher.losses import count_lost, lost_key
from service.dispatcher.memory_kills import memory_remedy
from service.dispatcher.requirements import Requirements
from service.dispatcher.run_rows import STOPPED_WITH_SERVICE, close_run, new_run
from service.dispatcher.steps import observed
from service.dispatcher.transitions import fail_job, move_job
from service.identifiers import new_file_id
from service.registry import base_model_of

FIRST_ATTEMPT_DELAY_S = 2.0
ATTEMPT_DELAY_GROWTH = 4.0
LONGEST_ATTEMPT_DELAY_S = 60.0


class IncompleteOutcome(RuntimeError):
    """`outcome.json` says succeeded and names no adapter or metrics: a defect of the trainer, not of the job."""


@observed("settle")
def settle_outcome(context: DispatchContext, job: JobRow, run: RunRow, outcome: Outcome) -> None:
    """Publish what the run says of itself. The run stays open until the backend has let go of its processes."""
    now = context.clock()
    with fenced_write(context, JobId(job.id)) as session:
        match outcome.status:
            case "succeeded":
                _publish(session, context, job, run, outcome)
            case "paused":
                event = NewEvent(f"run:{run.id}:paused", now, "info", "The job has been paused")
                changes = {"estimated_finish_at": None}
                move_job(session, job, seen="running", to="paused", events=[event], changes=changes)
            case "failed":
                fail_job(session, job, seen="running", failure=_told_failure(run, outcome), now=now)


def _told_failure(run: RunRow, outcome: Outcome) -> JobFailure:
    error = outcome.error
    if error is None:
        return JobFailure("training_failed", f"Run {run.id} failed and gave no reason; see its log.")
    return JobFailure(error.code, error.message, error.param)


@observed("settle")
def settle_lost(context: DispatchContext, job: JobRow, run: RunRow, *, detail: str, log_tail: str) -> None:
    """End a run that left no outcome; its job goes on with a next attempt, or fails when it had its last."""
    now, cause = context.clock(), detail or "the cluster no longer knows it"
    with fenced_write(context, JobId(job.id)) as session:
        close_run(session, job, run, reason=cause, now=now)
        lost = count_lost(session, run)
        if lost >= context.max_attempts:
            failure = _run_lost(run, cause, log_tail, attempts=lost)
            fail_job(session, job, seen="running", failure=failure, now=now)
            leases_of(session, context).release(JobId(job.id))
            return
        progress = f"attempt {lost + 1} of {context.max_attempts} goes on from the last checkpoint"
        launch_at = now + timedelta(seconds=attempt_delay_s(lost))
        message = f"Run {run.id} was lost ({cause}); {progress}{memory_remedy(cause, log_tail)}"
        _start_next_attempt(session, context, job, run, message, launch_at=launch_at)


@observed("settle")
def settle_interrupted(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """End a run that the service itself stopped on its way out: that costs the job no attempt."""
    with fenced_write(context, JobId(job.id)) as session:
        close_run(session, job, run, reason=STOPPED_WITH_SERVICE, now=context.clock())
        message = (
            f"Run {run.id} was stopped with the service; the job goes on from the last checkpoint at its next start"
        )
        _start_next_attempt(session, context, job, run, message, launch_at=None)


def attempt_delay_s(lost: int) -> float:
    """What ends one attempt, a full disk or a node that restarts, would end the next one at once, too."""
    return min(LONGEST_ATTEMPT_DELAY_S, FIRST_ATTEMPT_DELAY_S * ATTEMPT_DELAY_GROWTH ** (lost - 1))


def _start_next_attempt(
    session: Session, context: DispatchContext, job: JobRow, run: RunRow, message: str, *, launch_at: datetime | None
) -> None:
    job_id, now = JobId(job.id), context.clock()
    if not JobRepository(session).next_attempt(job_id, seen_attempt=run.attempt):
        leases_of(session, context).release(job_id)
        return
    needed = Requirements.of(run)
    RunRepository(session).add(new_run(job, needed, attempt=run.attempt + 1, now=now, launch_at=launch_at))
    EventRepository(session).append(job_id, [NewEvent(lost_key(run.id), now, "warn", message)])


def _run_lost(run: RunRow, cause: str, log_tail: str, *, attempts: int) -> JobFailure:
    said = f" Its log ends: {words[:500]}" if (words := last_words(log_tail)) else ""
    remedy = memory_remedy(cause, log_tail)
    return JobFailure("run_lost", f"Run {run.id}, attempt {attempts} of {attempts}, was lost ({cause}){remedy}.{said}")


def _publish(session: Session, context: DispatchContext, job: JobRow, run: RunRow, outcome: Outcome) -> None:
    if outcome.adapter is None or outcome.metrics_csv is None:
        raise IncompleteOutcome(f"run {run.id}: outcome.json says succeeded without an adapter or a metrics file")
    now = context.clock()
    metrics = _result_file(job, run, outcome.metrics_csv, filename="step_metrics.csv", context=context)
    archive = _result_file(job, run, outcome.adapter.archive, filename="adapter.tar.gz", context=context)
    events = [
        NewEvent("job:model", now, "info", f"New fine-tuned model created: {job.fine_tuned_model}"),
        NewEvent("job:succeeded", now, "info", "The job has successfully completed"),
    ]
    changes = {
        "trained_tokens": outcome.trained_tokens,
        "result_file_ids": [metrics.id, archive.id],
        "finished_at": now,
        "estimated_finish_at": None,
    }
    if not move_job(session, job, seen="running", to="succeeded", events=events, changes=changes):
        return
    files = FileRepository(session)
    files.add(metrics)
    files.add(archive)
    ModelRepository(session).add(
        ModelRow(
            name=job.fine_tuned_model,
            project_id=job.project_id,
            job_id=job.id,
            base_model=base_model_of(job.model),
            created_at=now,
            adapter_key=f"{_prefix(job, run)}/{outcome.adapter.folder}",
            adapter_sha256=outcome.adapter.sha256,
            adapter_bytes=outcome.adapter.bytes,
            archive_file_id=archive.id,
        )
    )


def _result_file(job: JobRow, run: RunRow, stored: StoredFile, *, filename: str, context: DispatchContext) -> FileRow:
    """A row over the bytes where the run left them."""
    file_id: FileId = new_file_id()
    return FileRow(
        id=file_id,
        project_id=job.project_id,
        filename=filename,
        purpose="fine-tune-results",
        object_key=f"{_prefix(job, run)}/{stored.path}",
        size_bytes=stored.bytes,
        sha256=stored.sha256,
        created_at=context.clock(),
        expires_at=None,
    )


def _prefix(job: JobRow, run: RunRow) -> str:
    return run_prefix(JobId(job.id), RunId(run.id))
