"""A migrated database of each kind, with one project."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.ids import ProjectId
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.db.tables import ProjectRow
from service.identifiers import new_project_id
from service.telemetry.facts import Fact
from tests.postgres import PostgresDatabases
from tests.sqlite import new_sqlite_url
from tests.unit.service.db.rows import NOW


@pytest.fixture
def told() -> list[Fact]:
    """What the database told of its committed transactions."""
    return []


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, told: list[Fact]) -> Iterator[Database]:
    if request.param == "sqlite":
        opened = Database(new_sqlite_url(tmp_path / "dpo.sqlite3"), tell=told.append)
    else:
        postgres: PostgresDatabases = request.getfixturevalue("postgres")
        opened = Database(postgres.new_url(), tell=told.append)
    yield opened
    opened.close()


@pytest.fixture
def project_id(database: Database) -> ProjectId:
    project_id = new_project_id()
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=project_id, name="default", created_at=NOW))
    return project_id
