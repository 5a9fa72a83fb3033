"""Jobs, which are the queue, and what comes of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Table, partial_index


class JobRow(Table):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name="status",
        ),
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_status_id", "status", "id"),
        Index("ix_jobs_finished_at", "finished_at"),
        partial_index("ix_jobs_queued", "project_id", text("priority DESC"), "id", where="status = 'queued'"),
        partial_index(
            "ix_jobs_queued_on_cpus",
            "project_id",
            text("priority DESC"),
            "id",
            where="status = 'queued' AND gpus = 0",
        ),
        partial_index("ix_jobs_running", "project_id", where="status = 'running'"),
        partial_index(
            "ix_jobs_waiting", "project_id", "status", "id", where="status IN ('validating_files', 'queued')"
        ),
        partial_index("ix_jobs_leased", "lease_owner", where="lease_owner IS NOT NULL"),
        partial_index("ix_jobs_leftovers", "leftovers_since", where="leftovers_since IS NOT NULL"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(String(32))
    version: Mapped[int] = mapped_column(Integer)
    """Rises with every change of the row: the ETag."""
    attempt: Mapped[int] = mapped_column(Integer)
    """Number of the current run, 0 before the first: the fencing token's second half."""
    event_count: Mapped[int] = mapped_column(Integer)
    """Events so far: the sequence number of the newest one."""
    priority: Mapped[int] = mapped_column(Integer, server_default="0")
    """Higher goes first, among the jobs of one project."""
    gpus: Mapped[int] = mapped_column(Integer, server_default="0")
    """That it needs, as the registry last told: by it the queue knows what a quota holds back."""
    told_waiting_for: Mapped[str | None] = mapped_column(String(16))
    """What its last event of waiting said that it waits for. Null: none was told since it last ran."""
    preempting_since: Mapped[datetime | None]
    """When it last had other jobs stopped to get their room, which is kept for it for a while. Null once it runs."""
    preempted_at: Mapped[datetime | None]
    """When it was last stopped for another job."""
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    """The dispatcher that works on this job; no other writes to it. Null: none does."""
    lease_expires_at: Mapped[datetime | None]
    """From when on another dispatcher may take it over."""
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    estimated_finish_at: Mapped[datetime | None]
    leftovers_since: Mapped[datetime | None]
    """From when on its run folders may hold what no row names. Null: it has not ended, or they have been swept."""

    request: Mapped[dict[str, Any]]
    """The CreateJobRequest with all its defaults: which values the user gave, it no longer tells. Under an `ft:` model,
    `lora` has the shape of that one's adapter."""
    traceparent: Mapped[str | None] = mapped_column(String(64))
    """The span of the request that made the job, which its later spans belong to. Null: it was not traced."""
    resolved_method: Mapped[dict[str, Any] | None]
    """The method with every "auto" resolved; null until the files are validated."""
    model: Mapped[str] = mapped_column(String(256))
    training_file_id: Mapped[str] = mapped_column(String(64))
    validation_file_id: Mapped[str | None] = mapped_column(String(64))
    training_format: Mapped[str | None] = mapped_column(String(32))
    validation_format: Mapped[str | None] = mapped_column(String(32))
    training_pairs: Mapped[int | None] = mapped_column(Integer)
    seed: Mapped[int] = mapped_column(Integer)
    fine_tuned_model: Mapped[str] = mapped_column(String(512))
    """The name the result has once the job succeeded."""

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_param: Mapped[str | None] = mapped_column(String(256))
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    result_file_ids: Mapped[list[str]]


class JobMetadataRow(Table):
    """Metadata as rows, so that the `metadata[k]=v` filter is an index look-up."""

    __tablename__ = "job_metadata"
    __table_args__ = (Index("ix_job_metadata_key_value_job_id", "key", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))


class CheckpointRow(Table):
    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step"), Index("ix_checkpoints_job_id_id", "job_id", "id"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int] = mapped_column(Integer)
    model_name: Mapped[str] = mapped_column(String(512))
    created_at: Mapped[datetime]
    train_loss: Mapped[float] = mapped_column(Float)
    train_mean_token_accuracy: Mapped[float] = mapped_column(Float)
    valid_loss: Mapped[float | None] = mapped_column(Float)
    valid_mean_token_accuracy: Mapped[float | None] = mapped_column(Float)


class ModelRow(Table):
    """An adapter that can be used by name: a job's result or one of its checkpoints."""

    __tablename__ = "models"
    __table_args__ = (
        Index("ix_models_project_id_created_at", "project_id", "created_at"),
        Index("ix_models_job_id", "job_id"),
    )

    name: Mapped[str] = mapped_column(String(512), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    base_model: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[datetime]
    adapter_key: Mapped[str] = mapped_column(String(512))
    """Object key of the unpacked adapter's folder."""
    adapter_sha256: Mapped[str] = mapped_column(String(64))
    adapter_bytes: Mapped[int] = mapped_column(BigInteger)
    archive_file_id: Mapped[str | None] = mapped_column(String(64))
