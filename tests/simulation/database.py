"""One database for many histories: emptied between them, because a new one costs more than a history."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import structlog

from service import identifiers
from service.db.engine import Database
from service.db.migrate import upgrade
from service.db.tables import Table


def open_memory_database() -> Database:
    """SQLite in memory, which one thread alone may use."""
    database = Database("sqlite://")
    upgrade(database.engine)
    return database


def empty(database: Database) -> None:
    with database.write() as session:
        for table in reversed(Table.metadata.sorted_tables):
            session.execute(table.delete())


@contextmanager
def deterministic_ids() -> Iterator[None]:
    """Ids in the order of their making, so that a seed always tells the same history."""
    numbers = count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identifiers, "_time_ordered", lambda: f"{(number := next(numbers)):012x}7{number:019x}")
        yield


@contextmanager
def listening(entries: list[dict[str, object]]) -> Iterator[None]:
    """What the service logs, without printing it."""
    former = structlog.get_config()

    def keep(_logger: object, method: str, entry: dict[str, object]) -> None:
        entries.append({"log_level": method, **entry})
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    try:
        yield
    finally:
        structlog.configure(**former)
