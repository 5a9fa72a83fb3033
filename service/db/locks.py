"""Locks by name, held to the end of a writing transaction: where two writers must not both look before either writes.

Advisory locks of PostgreSQL. SQLite has one writer at a time anyway.
"""

from enum import IntEnum

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

NAMESPACE = 0x64706F
"""The first of the lock's two keys: whoever shares the database is not in our way."""


class Lock(IntEnum):
    MIGRATION = 1
    QUEUE = 2
    """Room in the cluster, quotas and fair shares are looked at and used up under it."""
    FIRST_KEY = 3


def take_lock(session: Session | Connection, lock: Lock) -> None:
    """Wait for the lock. Raises: sqlalchemy.exc.OperationalError after `lock_timeout`."""
    connection = session.connection() if isinstance(session, Session) else session
    if connection.dialect.name == "postgresql":
        keys = {"namespace": NAMESPACE, "lock": int(lock)}
        connection.execute(text("SELECT pg_advisory_xact_lock(:namespace, :lock)"), keys)
