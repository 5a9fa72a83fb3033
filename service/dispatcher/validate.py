"""Validate a new job's files, each in a process of its own, and queue the job or fail it with the lines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from schemas.fine_tuning import DpoOptions
from schemas.ids import JobId
from service.backends.backend import BackendUnavailable
from service.db.events import NewEvent
from service.db.jobs import JobRepository
from service.db.tables import FileRow, JobRow
from service.dispatcher.capacity_watch import look_at_cluster
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.files_of_job import FileGone, files_of, find_files
from service.dispatcher.job_request import UnreadableRequest, read_request
from service.dispatcher.leases import fenced_write, leases_of
from service.dispatcher.model_of_job import ModelGone, ModelOfJob, find_model
from service.dispatcher.requirements import Requirements, refuse_reason, resolve_requirements
from service.dispatcher.steps import observed_step
from service.dispatcher.transitions import fail_job, move_job
from service.files.validation import FileReport
from service.files.validation_process import ValidationProcessFailed
from service.jobs import hyperparameters
from service.storage.object_store import ObjectNotFound

log = structlog.get_logger()

ONE_CPU_WORKER = Requirements(workers=1, gpus_per_worker=0)
"""What every cluster has."""


@dataclass(frozen=True, slots=True)
class _Reports:
    training: FileReport
    validation: FileReport | None


class _Refused(Exception):
    def __init__(self, failure: JobFailure, errors: Sequence[str] = ()) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.errors = errors
        """Each as the job's events list it."""


def validate_job(context: DispatchContext, job_id: JobId) -> None:
    """Blocks as long as reading the files takes; a job that is cancelled meanwhile stays cancelled.

    Raises: LeaseLost.
    """
    with context.database.read() as session:
        job = JobRepository(session).find_any(job_id)
    if job is None or job.status != "validating_files":
        return
    with observed_step(context, "validate", job):
        _validate(context, job)


def _validate(context: DispatchContext, job: JobRow) -> None:
    try:
        request = read_request(job)
        model, reports = _examine(context, job)
        _refuse_too_large(context, resolve_requirements(request.resources, model.entry))
    except _Refused as refused:
        refuse_files(context, job, refused.failure, errors=refused.errors)
        return
    except (FileGone, ModelGone, UnreadableRequest) as error:
        refuse_files(context, job, error.failure)
        return
    _queue(context, job, request.method.dpo, model, reports)


def refuse_files(context: DispatchContext, job: JobRow, failure: JobFailure, *, errors: Sequence[str] = ()) -> None:
    """Fail the job, which is then nobody's. Raises: LeaseLost."""
    job_id, now = JobId(job.id), context.clock()
    with fenced_write(context, job_id) as session:
        # Lists show the newest first: the failure, and then the first error.
        listed = [NewEvent(f"file:error:{number}", now, "error", text) for number, text in enumerate(errors, 1)][::-1]
        fail_job(session, job, seen="validating_files", failure=failure, now=now, details=listed)
        leases_of(session, context).release(job_id)


def _refuse_too_large(context: DispatchContext, needed: Requirements) -> None:
    """What the cluster can never run is told now, not once all that waits before it has run. Raises: _Refused."""
    if needed == ONE_CPU_WORKER:
        return
    try:
        largest = look_at_cluster(context)
    except BackendUnavailable:
        return  # the queue asks again
    failure = refuse_reason(needed, largest)
    if failure is not None:
        raise _Refused(failure)


def _examine(context: DispatchContext, job: JobRow) -> tuple[ModelOfJob, _Reports]:
    """Raises: _Refused; FileGone; ModelGone."""
    with context.database.read() as session:
        model = find_model(session, job, context.registry)
        files = files_of(job, find_files(session, [job], now=context.clock()))
    training = _report(context, files.training, param="training_file")
    validation = _report(context, files.validation, param="validation_file") if files.validation else None
    return model, _Reports(training, validation)


def _report(context: DispatchContext, file: FileRow, *, param: str) -> FileReport:
    """Raises: _Refused; FileGone."""
    try:
        report = context.validate_file(file.object_key)
    except ObjectNotFound as error:
        raise FileGone(file.id, param=param) from error
    except ValidationProcessFailed as error:
        log.warning("validation_stopped", key=file.object_key, reason=str(error))
        raise _Refused(JobFailure("invalid_file", f"{file.filename}: {error}", param)) from error
    if not report.is_valid:
        errors = [f"{file.filename}: {error}" for error in report.errors]
        raise _Refused(JobFailure("invalid_file", f"{file.filename}: {report.summary()}", param), errors)
    return report


def _queue(context: DispatchContext, job: JobRow, asked: DpoOptions, model: ModelOfJob, reports: _Reports) -> None:
    held_out = reports.validation.pairs if reports.validation else 0
    numbers = hyperparameters.resolve(asked, pairs=reports.training.pairs, validation_pairs=held_out, model=model.entry)
    changes: dict[str, Any] = {
        "training_format": reports.training.format,
        "training_pairs": reports.training.pairs,
        "validation_format": reports.validation.format if reports.validation else None,
        "resolved_method": numbers.method.model_dump(mode="json"),
    }
    with fenced_write(context, JobId(job.id)) as session:
        move_job(session, job, seen="validating_files", to="queued", events=_events(context, reports), changes=changes)
        leases_of(session, context).release(JobId(job.id))


def _events(context: DispatchContext, reports: _Reports) -> list[NewEvent]:
    now = context.clock()
    held_out = f" and {reports.validation.pairs:,} validation pairs" if reports.validation else ""
    message = f"Files validated: {reports.training.pairs:,} training pairs{held_out}, moving job to queued state"
    events = [NewEvent("job:queued", now, "info", message)]
    return events + [NewEvent(f"file:{key}", now, "warn", text) for key, text in _warnings(reports.training)]


def _warnings(training: FileReport) -> Iterator[tuple[str, str]]:
    if training.equal_pairs:
        yield (
            "equal_pairs",
            f"Pairs whose chosen and rejected answers are the same teach nothing: {training.equal_pairs:,}",
        )
    if training.repeated_pairs:
        yield "repeated_pairs", f"Pairs that repeat an earlier one count again: {training.repeated_pairs:,}"
    if training.contradictory_pairs:
        yield (
            "contradictory_pairs",
            "Pairs that contradict an earlier one, chosen and rejected exchanged, pull the model both ways: "
            f"{training.contradictory_pairs:,}. Keep the right ones, or tell of noisy labels (label_smoothing)",
        )
