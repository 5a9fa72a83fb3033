"""The database of all histories of a test process."""

from collections.abc import Iterator

import pytest

from service.db.engine import Database
from tests.simulation.database import open_memory_database


@pytest.fixture(scope="session")
def memory_database() -> Iterator[Database]:
    database = open_memory_database()
    yield database
    database.close()
