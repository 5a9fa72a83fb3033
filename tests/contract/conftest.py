"""One server a session of tests and kind of database; one project a test."""

from collections.abc import Iterator

import httpx2
import pytest
import structlog
from openai import OpenAI
from openai.resources.admin.organization import Organization

from service.api_keys import new_admin_key
from service.clock import utc_now
from service.db.admin_keys import AdminKeyRepository
from service.db.tables import AdminKeyRow
from service.organization.admin_keys import admin_key_row
from tests.contract.server import ProjectAccess, Server, new_project, openai_client, running_server
from tests.postgres import PostgresDatabases


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> Iterator[None]:
    """The servers' threads log between tests, too, where pytest captures nothing."""
    before = structlog.get_config()["logger_factory"]
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(logger_factory=before)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database_url = None
    if request.param == "postgresql":
        postgres: PostgresDatabases = request.getfixturevalue("postgres")
        database_url = postgres.new_url()
    with running_server(tmp_path_factory.mktemp("server"), database_url=database_url) as running:
        yield running


@pytest.fixture
def project(server: Server) -> ProjectAccess:
    return new_project(server.database)


@pytest.fixture
def client(server: Server, project: ProjectAccess) -> OpenAI:
    return openai_client(server, project)


@pytest.fixture
def http(server: Server, project: ProjectAccess) -> Iterator[httpx2.Client]:
    """What the SDK cannot send, with the project's key."""
    with httpx2.Client(timeout=30, base_url=server.url, headers=project.headers, verify=False) as connected:
        yield connected


@pytest.fixture
def admin_key(server: Server) -> Iterator[str]:
    key = new_admin_key()
    with server.database.write() as session:
        AdminKeyRepository(session).add(admin_key_row("tests", key, now=utc_now()))
    yield key
    with server.database.write() as session:
        session.query(AdminKeyRow).delete()


@pytest.fixture
def organization(server: Server, admin_key: str) -> Organization:
    return server.anonymous.with_options(admin_api_key=admin_key).admin.organization
