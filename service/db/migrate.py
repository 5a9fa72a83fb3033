"""Bring a database to the newest schema, or see that it is there, by Alembic, from inside the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from service.db.locks import Lock, take_lock


class SchemaNotCurrent(RuntimeError):
    """The database has another revision of the schema than this version works with."""

    def __init__(self, found: str | None, *, needed: str | None) -> None:
        super().__init__(f"its schema is at revision {found or 'none'}, this version works with {needed}")


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; of several that come at once, one does it and the others wait."""
    with engine.connect() as connection, _without_foreign_keys(connection), connection.begin():
        _wait_as_long_as_it_takes(connection)
        take_lock(connection, Lock.MIGRATION)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_current(engine: Engine) -> None:
    """Raises: SchemaNotCurrent."""
    needed = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != needed:
        raise SchemaNotCurrent(found, needed=needed)


def _wait_as_long_as_it_takes(connection: Connection) -> None:
    """A request's limits would end the wait for another process's migration, and a large index at each try."""
    if connection.dialect.name == "postgresql":
        for limit in ("lock_timeout", "statement_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


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
