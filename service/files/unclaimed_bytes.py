"""Bytes that were written before their row: without the row they go again."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.storage.object_store import ObjectStore


class WrittenBytes:
    """Whether the bytes have got their row."""

    is_kept = False


@contextmanager
def deleted_unless_kept(store: ObjectStore, key: str) -> Iterator[WrittenBytes]:
    """Delete what lies under `key` unless the block has set `is_kept`, which it does once the row is committed."""
    written = WrittenBytes()
    try:
        yield written
    finally:
        if not written.is_kept:
            store.delete(key)
