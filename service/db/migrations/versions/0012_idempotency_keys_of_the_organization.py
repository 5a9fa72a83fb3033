"""Idempotency keys of the organization beside those of projects. A downgrade forgets the organization's."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OF_PROJECTS = "fk_idempotency_keys_project_id_projects"


def upgrade() -> None:
    with op.batch_alter_table("idempotency_keys") as batch_op:
        batch_op.drop_constraint(op.f(OF_PROJECTS), type_="foreignkey")
        batch_op.alter_column("project_id", new_column_name="owner", existing_type=sa.String(length=64))


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE owner = 'organization'")
    with op.batch_alter_table("idempotency_keys") as batch_op:
        batch_op.alter_column("owner", new_column_name="project_id", existing_type=sa.String(length=64))
    with op.batch_alter_table("idempotency_keys") as batch_op:
        batch_op.create_foreign_key(op.f(OF_PROJECTS), "projects", ["project_id"], ["id"])
