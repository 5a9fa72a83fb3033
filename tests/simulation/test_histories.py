"""Histories by seed: whatever happens, no invariant breaks, and in the end every job has ended rightly."""

import pytest

from service.db.engine import Database
from tests.postgres import PostgresDatabases
from tests.simulation.history import seeds, tell_history

pytestmark = pytest.mark.slow

HISTORIES = seeds(range(1000))
A_TEST = 20
POSTGRES_HISTORIES = seeds(range(6))


@pytest.mark.parametrize("first", HISTORIES[::A_TEST])
def test_every_history_ends_rightly(memory_database: Database, first: int) -> None:
    for seed in HISTORIES[HISTORIES.index(first) :][:A_TEST]:
        tell_history(memory_database, seed)


def test_histories_end_rightly_on_postgresql(postgres: PostgresDatabases) -> None:
    database = Database(postgres.new_url())
    try:
        for seed in POSTGRES_HISTORIES:
            tell_history(database, seed)
    finally:
        database.close()
