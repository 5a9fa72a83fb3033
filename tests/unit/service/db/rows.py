"""Rows for tests of the database."""

from datetime import UTC, datetime

from schemas.ids import JobId, ProjectId
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.tables import JobRow
from service.identifiers import new_job_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def add_job(
    database: Database, project_id: ProjectId, *, status: str = "queued", metadata: dict[str, str] | None = None
) -> JobId:
    job_id = new_job_id()
    row = JobRow(
        id=job_id,
        project_id=project_id,
        status=status,
        version=0,
        attempt=0,
        event_count=0,
        created_at=NOW,
        request={},
        model="m",
        training_file_id="file-1",
        seed=0,
        fine_tuned_model="ft:m",
        result_file_ids=[],
    )
    with database.write() as session:
        JobRepository(session).add(row, metadata=metadata or {})
    return job_id
