"""Leases, priorities, quotas, and what an open run holds of the cluster."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db.tables import UtcDateTime

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ADDED = {
    "projects": ("max_running_jobs", "max_queued_jobs", "last_claimed_at"),
    "jobs": ("priority", "lease_owner", "lease_expires_at"),
    "runs": ("workers", "gpus", "launch_at"),
}
INDEXES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("ix_jobs_queued", "jobs", ("project_id", "priority DESC", "id"), "status = 'queued'"),
    ("ix_jobs_running", "jobs", ("project_id",), "status = 'running'"),
    ("ix_jobs_waiting", "jobs", ("project_id",), "status IN ('validating_files', 'queued')"),
    ("ix_jobs_leased", "jobs", ("lease_owner",), "lease_owner IS NOT NULL"),
    ("ix_runs_open", "runs", ("job_id",), "ended_at IS NULL"),
)


def upgrade() -> None:
    op.add_column("projects", sa.Column("max_running_jobs", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("max_queued_jobs", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("last_claimed_at", UtcDateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("lease_owner", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("lease_expires_at", UtcDateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("workers", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("runs", sa.Column("gpus", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("launch_at", UtcDateTime(timezone=True), nullable=True))
    for name, table, keys, where in INDEXES:
        expressions = [sa.text(key) if " " in key else key for key in keys]
        op.create_index(name, table, expressions, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table)
    for table, names in ADDED.items():
        with op.batch_alter_table(table) as batch_op:
            for name in names:
                batch_op.drop_column(name)
