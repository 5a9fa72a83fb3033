"""A migrated database in a file, with one project."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.ids import ProjectId
from service.db.engine import Database
from service.db.migrate import upgrade
from service.db.projects import ProjectRepository
from service.db.tables import ProjectRow
from service.identifiers import new_project_id
from tests.unit.service.db.rows import NOW


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'dpo.sqlite3'}")
    upgrade(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def project_id(database: Database) -> ProjectId:
    project_id = new_project_id()
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=project_id, name="default", created_at=NOW))
    return project_id
