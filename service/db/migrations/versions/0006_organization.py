"""Service accounts, admin keys, archived projects; keys have names and scopes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db.tables import UtcDateTime

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ACCOUNT_OF_KEY = "fk_api_keys_service_account_id_service_accounts"


def upgrade() -> None:
    op.create_table(
        "admin_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("last_characters", sa.String(length=8), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_admin_keys_sha256")),
    )
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_service_accounts_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_accounts")),
    )
    op.create_index("ix_service_accounts_project_id_id", "service_accounts", ["project_id", "id"])
    with op.batch_alter_table("projects") as batch_op:
        batch_op.add_column(sa.Column("archived_at", UtcDateTime(timezone=True), nullable=True))
    with op.batch_alter_table("api_keys") as batch_op:
        batch_op.add_column(sa.Column("service_account_id", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("name", sa.String(length=256), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("last_characters", sa.String(length=8), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("scopes", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.create_foreign_key(op.f(ACCOUNT_OF_KEY), "service_accounts", ["service_account_id"], ["id"])
        batch_op.create_index("ix_api_keys_project_id_id", ["project_id", "id"])


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as batch_op:
        batch_op.drop_index("ix_api_keys_project_id_id")
        batch_op.drop_constraint(op.f(ACCOUNT_OF_KEY), type_="foreignkey")
        for column in ("scopes", "last_characters", "name", "service_account_id"):
            batch_op.drop_column(column)
    with op.batch_alter_table("projects") as batch_op:
        batch_op.drop_column("archived_at")
    op.drop_table("service_accounts")
    op.drop_table("admin_keys")
