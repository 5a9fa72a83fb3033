"""Quotas of GPUs, GPU-hours and stored bytes; preemption; runs know their project, and wait for room by themselves."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db.tables import UtcDateTime

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ADDED = {
    "projects": ("max_gpus", "max_gpu_hours_a_month", "gpu_hours_used_up_until", "max_stored_bytes"),
    "jobs": ("gpus", "told_waiting_for", "preempting_since", "preempted_at"),
    "runs": ("project_id", "model", "admitted_at", "preempted_by"),
}
QUEUED_ON_CPUS = sa.text("status = 'queued' AND gpus = 0")
PENDING = sa.text("status = 'pending'")


def upgrade() -> None:
    op.add_column("projects", sa.Column("max_gpus", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("max_gpu_hours_a_month", sa.Float(), nullable=True))
    op.add_column("projects", sa.Column("gpu_hours_used_up_until", UtcDateTime(timezone=True), nullable=True))
    op.add_column("projects", sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("gpus", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("told_waiting_for", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("preempting_since", UtcDateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("preempted_at", UtcDateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("project_id", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("model", sa.String(length=256), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("admitted_at", UtcDateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("preempted_by", sa.String(length=64), nullable=True))
    op.execute(
        "UPDATE runs SET project_id = (SELECT jobs.project_id FROM jobs WHERE jobs.id = runs.job_id), "
        "model = (SELECT jobs.model FROM jobs WHERE jobs.id = runs.job_id), admitted_at = created_at"
    )
    keys: tuple[str | sa.TextClause, ...] = ("project_id", sa.text("priority DESC"), "id")
    op.create_index(
        "ix_jobs_queued_on_cpus", "jobs", keys, sqlite_where=QUEUED_ON_CPUS, postgresql_where=QUEUED_ON_CPUS
    )
    op.create_index("ix_runs_project_id_ended_at", "runs", ["project_id", "ended_at"])
    op.create_index("ix_uploads_pending", "uploads", ["project_id"], sqlite_where=PENDING, postgresql_where=PENDING)
    op.create_table(
        "cluster_capacity",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpus_seen_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("cpus_seen_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster_capacity")),
    )


def downgrade() -> None:
    op.drop_table("cluster_capacity")
    op.drop_index("ix_uploads_pending", "uploads")
    op.drop_index("ix_runs_project_id_ended_at", "runs")
    op.drop_index("ix_jobs_queued_on_cpus", "jobs")
    for table, names in ADDED.items():
        with op.batch_alter_table(table) as batch_op:
            for name in names:
                batch_op.drop_column(name)
