"""The trace of the request that made a job; the waiting jobs' index tells their number and the oldest by itself."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

WAITING = sa.text("status IN ('validating_files', 'queued')")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("traceparent", sa.String(length=64), nullable=True))
    _index_waiting("project_id", "status", "id")


def downgrade() -> None:
    _index_waiting("project_id")
    op.drop_column("jobs", "traceparent")


def _index_waiting(*columns: str) -> None:
    op.drop_index("ix_jobs_waiting", "jobs")
    op.create_index("ix_jobs_waiting", "jobs", list(columns), sqlite_where=WAITING, postgresql_where=WAITING)
