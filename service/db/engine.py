"""The engine and the two kinds of transaction, over SQLite and PostgreSQL.

SQLite upgrades a read to a write lock only by luck: two deferred transactions that both read and then write deadlock
at once, busy timeout or not. So a transaction says beforehand whether it writes, and a writing one begins IMMEDIATE.

PostgreSQL runs writers beside each other (READ COMMITTED). What SQLite serialises by itself must be said there: a
compare-and-set UPDATE, a row read `with_for_update`, or a lock by name (`service.db.locks`).
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from service.db.committed import facts_of
from service.telemetry.facts import Tell, tell_nobody

BUSY_TIMEOUT_MS = 10_000
POOL_SIZE = 10
POOL_OVERFLOW = 10
"""At most 20 connections a process: two API processes and two dispatchers fit PostgreSQL's usual 100."""
POOL_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
"""A server that vanished with its address answers nothing at all: found out in 20 s, not in the system's 15 minutes."""
IDLE_S = 5.0
"""From when on a connection is asked whether it still works."""
RETURNED_AT = "returned_at"
READ_ONLY = "25006"
"""PostgreSQL's state for a write to a standby, which is what a server is while another one takes over."""
SESSION_SETTINGS = {
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    # A process that was stopped in the middle of a transaction must not hold its locks for ever.
    "idle_in_transaction_session_timeout": "60s",
}


class Database:
    """One engine; `read` and `write` each open one transaction that ends with the block."""

    def __init__(self, url: str, *, tell: Tell = tell_nobody) -> None:
        """`tell` is called with each fact that a transaction noted, once it is committed."""
        self.engine = _open_engine(url)
        self._tell = tell
        self._writing = self.engine.execution_options(begin_immediate=True)
        self._reading = _reading(self.engine)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Commit when the block ends, roll back when it raises."""
        with Session(self._writing, expire_on_commit=False) as session:
            with session.begin():
                yield session
            for fact in facts_of(session):
                self._tell(fact)

    def check_reachable(self) -> None:
        """Raises: sqlalchemy.exc.SQLAlchemyError."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def is_outage(error: Exception) -> bool:
    """Whether the database was away, full, too busy or on its way to another server: it may go through in a moment."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) == READ_ONLY


def _open_engine(url: str) -> Engine:
    is_postgres = make_url(url).get_backend_name() == "postgresql"
    # Errors are logged, and a statement's parameters are users' own texts and hashes of keys.
    engine = create_engine(url, hide_parameters=True, **(_postgres_options() if is_postgres else {}))
    if is_postgres:
        event.listen(engine, "checkin", _note_return)
        event.listen(engine, "checkout", partial(_ping_idle, engine.dialect))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _reading(engine: Engine) -> Engine:
    """PostgreSQL's usual transaction shows what was committed before each statement; so does none, without the two
    round trips of its begin and end. SQLite's shows one state to its end."""
    return engine.execution_options(isolation_level="AUTOCOMMIT") if engine.name == "postgresql" else engine


def _postgres_options() -> dict[str, Any]:
    settings = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    return {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_OVERFLOW,
        "pool_timeout": POOL_TIMEOUT_S,
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "dpo-service",
            "options": settings,
            **SILENCE,
        },
    }


def _note_return(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[RETURNED_AT] = time.monotonic()


def _ping_idle(dialect: Dialect, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Replace a connection from before the server's restart unseen. One that just worked is not asked: at each poll
    that would be a third round trip."""
    if time.monotonic() - record.info.get(RETURNED_AT, time.monotonic()) < IDLE_S:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error  # the others are as old


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 would otherwise begin by itself, and deferred
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("begin_immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
