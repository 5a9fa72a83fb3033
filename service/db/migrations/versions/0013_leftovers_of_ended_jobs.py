"""Which ended jobs may have left in their run folders what no row names: at first, all that have run."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db.tables import UtcDateTime

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("leftovers_since", UtcDateTime(timezone=True), nullable=True))
    op.execute("UPDATE jobs SET leftovers_since = finished_at WHERE attempt > 0")
    op.create_index(
        "ix_jobs_leftovers",
        "jobs",
        ["leftovers_since"],
        sqlite_where=sa.text("leftovers_since IS NOT NULL"),
        postgresql_where=sa.text("leftovers_since IS NOT NULL"),
    )
    op.create_index("ix_models_job_id", "models", ["job_id"])


def downgrade() -> None:
    op.drop_index("ix_models_job_id", "models")
    op.drop_index("ix_jobs_leftovers", "jobs")
    op.drop_column("jobs", "leftovers_since")
