"""schemathesis over the whole OpenAPI document: requests as it describes them and others, answers as it promises them.

Half of the paths name things that are there, so that more is reached than a 404.
"""

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.belongings import new_admin, new_belongings
from tests.contract.operations import ADMIN_KEY, DOCUMENT, GUARDED, Operation
from tests.contract.server import Server, running_server
from tests.postgres import PostgresDatabases

pytestmark = pytest.mark.slow

EXAMPLES = 25
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described() -> dict[str, APIOperation]:
    """By method and path."""
    found = (result.ok() for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
    return {operation.label: operation for operation in found}


@pytest.fixture(scope="module")
def server(postgres: PostgresDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Over the stricter of the two databases."""
    with running_server(tmp_path_factory.mktemp("described"), database_url=postgres.new_url()) as running:
        yield running


@pytest.fixture(scope="module")
def admin_key(server: Server) -> str:
    return new_admin(server)


@pytest.fixture(scope="module")
def connection() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # a look at ~/.netrc and the proxies each time
        yield session


@pytest.mark.parametrize("operation", GUARDED, ids=str)
def test_every_answer_is_one_that_the_document_tells_of(
    server: Server,
    admin_key: str,
    connection: requests.Session,
    described: dict[str, APIOperation],
    operation: Operation,
) -> None:
    mine = new_belongings(server, admin_key)
    key = admin_key if operation.key_kind == ADMIN_KEY else mine.project.key
    requested = described[str(operation)]

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(cases_of(requested), st.booleans())
    def holds(case: Case, is_mine: bool) -> None:
        if is_mine:
            case.path_parameters = {name: mine.ids[name] for name in case.path_parameters or {}}
        case.headers["Authorization"] = f"Bearer {key}"
        answer = case.call(base_url=server.url, session=connection)
        case.validate_response(answer, checks=CHECKS)

    holds()


def cases_of(operation: APIOperation) -> st.SearchStrategy[Case]:
    return st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode])
