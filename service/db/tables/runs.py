"""Runs: the attempts of jobs, what they tell, and the cluster that they run on."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Table, partial_index


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


class ClusterCapacityRow(Table):
    """The one row: the most that the cluster had of late. What it lost is waited for a while, as it may come back."""

    __tablename__ = "cluster_capacity"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    gpus: Mapped[int] = mapped_column(Integer)
    gpus_seen_at: Mapped[datetime]
    cpus: Mapped[int] = mapped_column(Integer)
    cpus_seen_at: Mapped[datetime]
