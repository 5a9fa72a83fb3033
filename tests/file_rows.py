"""A row of a file, whose bytes are nowhere."""

from datetime import UTC, datetime

from service.db.engine import Database
from service.db.files import FileRepository
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, ProjectRow
from service.identifiers import new_file_id, new_project_id

CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def file_row(project_id: str, *, filename: str = "pairs.jsonl", purpose: str = "fine-tune") -> FileRow:
    file_id = new_file_id()
    return FileRow(
        id=file_id,
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        object_key=f"files/{file_id}",
        size_bytes=1,
        sha256="0" * 64,
        created_at=CREATED_AT,
        expires_at=None,
    )


def add_file_row(database: Database) -> None:
    """In a project of its own."""
    project_id = new_project_id()
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=project_id, name="its own", created_at=CREATED_AT))
        FileRepository(session).add(file_row(project_id))
