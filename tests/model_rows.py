"""Rows of tuned models, as the dispatcher writes them at a job's end."""

from datetime import UTC, datetime

from service.db.engine import Database
from service.db.models import ModelRepository
from service.db.tables import ModelRow

CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def add_model_row(
    database: Database, project_id: str, job_id: str, name: str, *, adapter_key: str = "runs/a/adapter"
) -> None:
    row = ModelRow(
        name=name,
        project_id=project_id,
        job_id=job_id,
        base_model="tiny-llama",
        created_at=CREATED_AT,
        adapter_key=adapter_key,
        adapter_sha256="0" * 64,
        adapter_bytes=7,
        archive_file_id=None,
    )
    with database.write() as session:
        ModelRepository(session).add(row)
