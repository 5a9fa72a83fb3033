"""Which ended jobs may have left in their run folders what no row names: at first, all.

The column's default says so at no cost, and of jobs that processes of the former version make or end meanwhile, too.
This version's own rows say null until they end.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db.tables import UtcDateTime

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LONG_AGO = sa.text("'1970-01-01 00:00:00.000000'")


def upgrade() -> None:
    op.create_index("ix_models_job_id", "models", ["job_id"])
    op.add_column(
        "jobs", sa.Column("leftovers_since", UtcDateTime(timezone=True), nullable=True, server_default=LONG_AGO)
    )
    op.create_index(
        "ix_jobs_leftovers",
        "jobs",
        ["leftovers_since"],
        sqlite_where=sa.text("leftovers_since IS NOT NULL"),
        postgresql_where=sa.text("leftovers_since IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_leftovers", "jobs")
    op.drop_column("jobs", "leftovers_since")
    op.drop_index("ix_models_job_id", "models")
