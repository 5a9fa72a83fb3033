"""A row of an uploaded file, in a project of its own."""

from datetime import UTC, datetime

from service.db.engine import Database
from service.db.files import FileRepository
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, ProjectRow
from service.identifiers import new_file_id, new_project_id

CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def add_file_row(database: Database) -> None:
    project_id, file_id = new_project_id(), new_file_id()
    row = FileRow(
        id=file_id,
        project_id=project_id,
        filename="pairs.jsonl",
        purpose="fine-tune",
        object_key=f"files/{file_id}",
        size_bytes=1,
        sha256="0" * 64,
        created_at=CREATED_AT,
        expires_at=None,
    )
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=project_id, name="its own", created_at=CREATED_AT))
        FileRepository(session).add(row)
