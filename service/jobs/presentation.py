"""Rows become the objects of the wire."""

from datetime import datetime

from schemas.fine_tuning import (
    Checkpoint,
    CheckpointMetrics,
    CreateJobRequest,
    DpoOptions,
    FineTuningJob,
    JobError,
    JobEvent,
    LegacyHyperparameters,
    Method,
)
from service.clock import unix_seconds
from service.db.tables import CheckpointRow, JobRow, RunEventRow
from service.jobs.lifecycle import parse_status


def present_job(job: JobRow) -> FineTuningJob:
    # A newer version, from which was gone back, may have stored fields that this one does not know.
    request = CreateJobRequest.model_validate(job.request, extra="ignore")
    method = job.resolved_method
    dpo = request.method.dpo if method is None else DpoOptions.model_validate(method, extra="ignore")
    return FineTuningJob(
        id=job.id,
        object="fine_tuning.job",
        created_at=unix_seconds(job.created_at),
        error=_present_error(job),
        # The name is chosen at submission and means something only once the adapter lies there.
        fine_tuned_model=job.fine_tuned_model if job.status == "succeeded" else None,
        finished_at=_optional_seconds(job.finished_at),
        hyperparameters=_repeat_at_the_top(dpo),
        model=job.model,
        organization_id=job.project_id,
        result_files=job.result_file_ids,
        seed=job.seed,
        status=parse_status(job.status),
        trained_tokens=job.trained_tokens,
        training_file=job.training_file_id,
        validation_file=job.validation_file_id,
        estimated_finish=_optional_seconds(job.estimated_finish_at),
        integrations=[],
        metadata=request.metadata,
        method=Method(type="dpo", dpo=dpo),
        resources=request.resources,
        priority=job.priority,
    )


def job_etag(job_id: str, version: int) -> str:
    return f'"{job_id}-{version}"'


def present_event(event: RunEventRow) -> JobEvent:
    return JobEvent.model_validate(
        {
            "id": event.id,
            "object": "fine_tuning.job.event",
            "created_at": unix_seconds(event.created_at),
            "level": event.level,
            "message": event.message,
            "type": event.type,
            "data": event.data,
        }
    )


def present_checkpoint(checkpoint: CheckpointRow) -> Checkpoint:
    return Checkpoint(
        id=checkpoint.id,
        object="fine_tuning.job.checkpoint",
        created_at=unix_seconds(checkpoint.created_at),
        fine_tuned_model_checkpoint=checkpoint.model_name,
        fine_tuning_job_id=checkpoint.job_id,
        metrics=CheckpointMetrics(
            step=checkpoint.step,
            train_loss=checkpoint.train_loss,
            train_mean_token_accuracy=checkpoint.train_mean_token_accuracy,
            valid_loss=checkpoint.valid_loss,
            valid_mean_token_accuracy=checkpoint.valid_mean_token_accuracy,
            # Every evaluation reads the whole validation file, so the two are the same.
            full_valid_loss=checkpoint.valid_loss,
            full_valid_mean_token_accuracy=checkpoint.valid_mean_token_accuracy,
        ),
        step_number=checkpoint.step,
    )


def _present_error(job: JobRow) -> JobError | None:
    if job.error_code is None:
        return None
    return JobError(code=job.error_code, message=job.error_message or "", param=job.error_param)


def _repeat_at_the_top(dpo: DpoOptions) -> LegacyHyperparameters:
    chosen = dpo.hyperparameters
    return LegacyHyperparameters(
        n_epochs=chosen.n_epochs,
        batch_size=chosen.batch_size,
        learning_rate_multiplier=chosen.learning_rate_multiplier,
    )


def _optional_seconds(moment: datetime | None) -> int | None:
    return None if moment is None else unix_seconds(moment)
