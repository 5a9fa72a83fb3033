"""PostgreSQL for all tests that ask for it, started with the first of them."""

from collections.abc import Iterator

import pytest

from tests.postgres import PostgresDatabases, postgres_databases


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases
