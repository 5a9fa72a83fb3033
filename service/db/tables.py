"""The tables. `jobs` is the queue, `runs` the attempts, `run_events` what a user polls.

Timestamps are aware UTC. Constraints are named, so that migrations can name them too.
"""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TextClause,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in and out; SQLite itself stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give an aware one")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def partial_index(name: str, *columns: str | TextClause, where: str) -> Index:
    """Index the few rows that are at work now, however many have ended."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012


class ProjectRow(Table):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[datetime]
    max_running_jobs: Mapped[int | None] = mapped_column(Integer)
    """Jobs beyond it wait in the queue. Null: no limit."""
    max_queued_jobs: Mapped[int | None] = mapped_column(Integer)
    """Jobs beyond it are refused with 429, those being validated counted too. Null: no limit."""
    max_gpus: Mapped[int | None] = mapped_column(Integer)
    """Of its open runs together; jobs beyond it wait. Null: no limit."""
    max_gpu_hours_a_month: Mapped[float | None] = mapped_column(Float)
    """Once used up in a calendar month (UTC), jobs on GPUs wait for the next one. Null: no limit."""
    gpu_hours_used_up_until: Mapped[datetime | None]
    """The end of the month whose GPU-hours were found used up: until then nothing needs to be summed up again."""
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Uploads beyond it are refused; results never are. Null: no limit."""
    last_claimed_at: Mapped[datetime | None]
    """When a job of it was last given its turn: of projects that run as much, the one that waited longest is next."""
    archived_at: Mapped[datetime | None]
    """From then on its keys open nothing. What it has stays, and its jobs run to their end."""


class ServiceAccountRow(Table):
    """Whom a project's keys are given to."""

    __tablename__ = "service_accounts"
    __table_args__ = (Index("ix_service_accounts_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class ApiKeyRow(Table):
    """A key is shown once and kept as the SHA-256 of its 256 random bits."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    service_account_id: Mapped[str | None] = mapped_column(ForeignKey("service_accounts.id"))
    """Null for a key that was given at the service's start."""
    name: Mapped[str] = mapped_column(String(256), server_default="")
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    last_characters: Mapped[str] = mapped_column(String(8), server_default="")
    """For people, to tell keys apart."""
    scopes: Mapped[list[str]] = mapped_column(server_default="[]")
    """Empty: everything."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AdminKeyRow(Table):
    """What opens `/v1/organization`, and nothing of any project."""

    __tablename__ = "admin_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    last_characters: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class RateLimitRow(Table):
    """What a project may ask for in a minute and in a day: of one base model jobs, of the model `*` requests."""

    __tablename__ = "rate_limits"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(256), primary_key=True)
    max_requests_per_1_minute: Mapped[int | None] = mapped_column(Integer)
    max_requests_per_1_day: Mapped[int | None] = mapped_column(Integer)
    """Null: no limit."""


class StoredBytesRow(Table):
    """What of a project lay in the store on a day, as last measured."""

    __tablename__ = "stored_bytes"

    day: Mapped[date] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class AuditLogRow(Table):
    """Who changed what of the organization, written with the change."""

    __tablename__ = "audit_logs"
    __table_args__ = (Index("ix_audit_logs_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    effective_at: Mapped[datetime]
    type: Mapped[str] = mapped_column(String(64))
    actor_key_id: Mapped[str] = mapped_column(String(64))
    """The admin key that was used."""
    project_id: Mapped[str | None] = mapped_column(String(64))
    """Null where an admin key was changed."""
    project_name: Mapped[str | None] = mapped_column(String(256))
    """As it was then."""
    details: Mapped[dict[str, Any]]
    """What the event tells under its type's name; its `id` is what was changed."""
    subject_id: Mapped[str] = mapped_column(String(320))
    """That `id`, to search by."""


class FileRow(Table):
    """The bytes lie in the store before this row exists, and the row goes before the bytes do."""

    __tablename__ = "files"
    __table_args__ = (
        Index("ix_files_project_id_id", "project_id", "id"),
        Index("ix_files_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str] = mapped_column(String(512))
    purpose: Mapped[str] = mapped_column(String(32))
    object_key: Mapped[str] = mapped_column(String(512))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class UploadRow(Table):
    """A file that arrives in parts. A pending one that is past its time counts as expired, swept or not."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'completed', 'cancelled', 'expired')", name="status"),
        Index("ix_uploads_status_expires_at", "status", "expires_at"),
        partial_index("ix_uploads_pending", "project_id", where="status = 'pending'"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str] = mapped_column(String(512))
    purpose: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """As announced."""
    file_lifetime_s: Mapped[int | None] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    file_id: Mapped[str | None] = mapped_column(String(64))
    """No foreign key: the File may be deleted, the upload stays completed."""
    completed_part_ids: Mapped[list[str] | None]
    """What the File was put together from, so that a repeated request gets the same answer."""


class UploadPartRow(Table):
    """Its bytes lie in the store before this row exists; the row goes before the bytes do."""

    __tablename__ = "upload_parts"
    __table_args__ = (Index("ix_upload_parts_upload_id", "upload_id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"))
    object_key: Mapped[str] = mapped_column(String(512))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


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

    request: Mapped[dict[str, Any]]
    """The CreateJobRequest, as the user wrote it."""
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


class RunRow(Table):
    """One attempt. Its id is the backend's submission id and the fencing token."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("job_id", "attempt"),
        partial_index("ix_runs_open", "job_id", where="ended_at IS NULL"),
        Index("ix_runs_project_id_ended_at", "project_id", "ended_at"),
    )

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int] = mapped_column(Integer)
    project_id: Mapped[str] = mapped_column(String(64), server_default="")
    """Its job's, as is the model: what a project used is summed up from this table alone."""
    model: Mapped[str] = mapped_column(String(256), server_default="")
    workers: Mapped[int] = mapped_column(Integer, server_default="1")
    gpus: Mapped[int] = mapped_column(Integer, server_default="0")
    """Of all its workers together; what an open run holds of the cluster."""
    created_at: Mapped[datetime]
    launch_at: Mapped[datetime | None]
    """Not before: an attempt after a lost one waits, longer each time. Null: at once."""
    admitted_at: Mapped[datetime | None]
    """When the cluster was found to have room for it: with the claim, or later for an attempt after a lost one."""
    submitted_at: Mapped[datetime | None]
    """Null between claim and submit: a crash there is repaired by submitting again."""
    preempted_by: Mapped[str | None] = mapped_column(String(64))
    """The job that it was stopped for."""
    ended_at: Mapped[datetime | None]
    """Null while the backend may still hold processes of it."""
    end_reason: Mapped[str | None] = mapped_column(Text)
    chunks_ingested: Mapped[int] = mapped_column(Integer)


class RunEventRow(Table):
    """`seq` has no gap within a job; `key` keeps a resumed run from telling a step twice."""

    __tablename__ = "run_events"
    __table_args__ = (UniqueConstraint("job_id", "seq"), UniqueConstraint("job_id", "key"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    seq: Mapped[int] = mapped_column(Integer)
    key: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None]


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
    __table_args__ = (Index("ix_models_project_id_created_at", "project_id", "created_at"),)

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


class IdempotencyRow(Table):
    """The first answer to an `Idempotency-Key`, told again to its repeats."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(256), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    """Of method, path and body."""
    response_body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class WebhookEndpointRow(Table):
    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("ix_webhook_endpoints_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(256))
    url: Mapped[str] = mapped_column(String(2048))
    event_types: Mapped[list[str]]
    secret_seed: Mapped[str] = mapped_column(String(64))
    """What the signing secret is derived from, together with the service's webhook key."""
    previous_secret_seed: Mapped[str | None] = mapped_column(String(64))
    previous_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookDeliveryRow(Table):
    """The outbox: an event on its way to an endpoint, written with the change that it tells."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        Index("ix_webhook_deliveries_next_attempt_at", "next_attempt_at"),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The `webhook-id` of every attempt."""
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    event: Mapped[dict[str, Any]]
    """The body."""
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime | None]
    """While an attempt is made: when it counts as dead. Null once there is nothing more to do."""
    last_attempt_at: Mapped[datetime | None]
    last_status_code: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(Text)


class ClusterCapacityRow(Table):
    """The one row: the most that the cluster had of late. What it lost is waited for a while, as it may come back."""

    __tablename__ = "cluster_capacity"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    gpus: Mapped[int] = mapped_column(Integer)
    gpus_seen_at: Mapped[datetime]
    cpus: Mapped[int] = mapped_column(Integer)
    cpus_seen_at: Mapped[datetime]
