"""Bytes that were written before their row: without the row they go again."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ServiceError
from service.storage.discard import discard
from service.storage.object_store import ObjectStore


class WrittenBytes:
    """Whether the bytes have got their row."""

    is_kept = False


@contextmanager
def deleted_unless_kept(store: ObjectStore, key: str) -> Iterator[WrittenBytes]:
    """Delete what lies under `key` unless the block has set `is_kept`, which it does once the row is committed.

    After an error that is none of ours they stay, for retention to take if they have no row: the database may have
    committed, and its answer been lost.
    """
    written = WrittenBytes()
    try:
        yield written
    except ServiceError:
        discard(store, [key])
        raise
    if not written.is_kept:
        discard(store, [key])
