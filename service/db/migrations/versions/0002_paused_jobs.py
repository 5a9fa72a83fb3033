"""Jobs can be paused. A downgrade puts those that are back into the queue."""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NAME = "ck_jobs_status"
BEFORE = "status IN ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')"
AFTER = "status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')"


def upgrade() -> None:
    _replace(AFTER)


def downgrade() -> None:
    op.execute("UPDATE jobs SET status = 'queued' WHERE status = 'paused' AND training_pairs IS NOT NULL")
    op.execute("UPDATE jobs SET status = 'validating_files' WHERE status = 'paused'")
    _replace(BEFORE)


def _replace(status_check: str) -> None:
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_constraint(op.f(NAME), type_="check")
        batch_op.create_check_constraint(op.f(NAME), status_check)
