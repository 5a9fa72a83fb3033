"""A kept checkpoint as the API shows it: a row of the job, and a model that can be named."""

from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import JobId, RunId
from schemas.run_layout import run_prefix
from schemas.run_record import CheckpointRecord
from service.db.checkpoints import CheckpointRepository
from service.db.models import ModelRepository
from service.db.tables import CheckpointRow, JobRow, ModelRow
from service.identifiers import new_checkpoint_id
from service.registry import base_model_of


def add_checkpoint(
    session: Session, job: JobRow, run_id: RunId, record: CheckpointRecord, *, created_at: datetime
) -> None:
    """Add it once: a resumed run tells the same step again."""
    name = f"{job.fine_tuned_model}:ckpt-step-{record.step}"
    if CheckpointRepository(session).add_once(_checkpoint_row(job, name, record, created_at=created_at)):
        ModelRepository(session).add(
            ModelRow(
                name=name,
                project_id=job.project_id,
                job_id=job.id,
                base_model=base_model_of(job.model),
                created_at=created_at,
                adapter_key=f"{run_prefix(JobId(job.id), run_id)}/{record.adapter}",
                adapter_sha256=record.adapter_sha256,
                adapter_bytes=record.adapter_bytes,
                archive_file_id=None,
            )
        )


def _checkpoint_row(job: JobRow, name: str, record: CheckpointRecord, *, created_at: datetime) -> CheckpointRow:
    return CheckpointRow(
        id=new_checkpoint_id(),
        job_id=job.id,
        step=record.step,
        model_name=name,
        created_at=created_at,
        train_loss=record.train_loss,
        train_mean_token_accuracy=record.train_mean_token_accuracy,
        valid_loss=record.valid_loss,
        valid_mean_token_accuracy=record.valid_mean_token_accuracy,
    )
