"""Who asks and what they may have: projects, accounts, keys, what lies there, and who changed what."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Table


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
