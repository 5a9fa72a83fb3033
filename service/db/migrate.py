"""Bring a database to the newest schema, by Alembic, from inside the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine


def upgrade(engine: Engine) -> None:
    with engine.connect() as connection, _without_foreign_keys(connection), connection.begin():
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """SQLite alters a table by dropping its former copy, which foreign keys to it would forbid.

    It takes the setting outside a transaction alone, hence around ours.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    _set_foreign_keys(connection, "OFF")
    try:
        yield
    finally:
        _set_foreign_keys(connection, "ON")


def _set_foreign_keys(connection: Connection, to: str) -> None:
    cursor = connection.connection.cursor()
    cursor.execute(f"PRAGMA foreign_keys={to}")
    cursor.close()
