"""The audit log, and rate limits of projects."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db.tables import UtcDateTime

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("max_requests_per_1_minute", sa.Integer(), nullable=True),
        sa.Column("max_requests_per_1_day", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_rate_limits_project_id_projects")),
        sa.PrimaryKeyConstraint("project_id", "model", name=op.f("pk_rate_limits")),
    )
    op.create_table(
        "audit_logs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("effective_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("actor_key_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=True),
        sa.Column("project_name", sa.String(length=256), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("subject_id", sa.String(length=320), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_logs")),
    )
    op.create_index("ix_audit_logs_project_id_id", "audit_logs", ["project_id", "id"])


def downgrade() -> None:
    op.drop_table("audit_logs")
    op.drop_table("rate_limits")
