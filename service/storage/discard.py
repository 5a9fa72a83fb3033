"""Delete bytes after the commit that took their row, or that never gave them one.

What was asked for is done by then: an error of the store would be told to who asked, who would ask again and hear
"not found". So it is logged, and the bytes are left to retention.
"""

from collections.abc import Iterable

import structlog

from service.storage.object_keys import InvalidObjectKey
from service.storage.object_store import ObjectStore

log = structlog.get_logger()


def try_delete(store: ObjectStore, key: str) -> bool:
    """False, and the cause in the log: it is still there."""
    try:
        store.delete(key)
    except (OSError, InvalidObjectKey):  # of a key that a listing told, as what others wrote there may have
        log.exception("bytes_not_deleted", key=key)
        return False
    return True


def discard(store: ObjectStore, keys: Iterable[str]) -> None:
    """Up to the first that the store fails on: the others would each wait as long for it."""
    for key in keys:
        if not try_delete(store, key):
            return


def discard_folder(store: ObjectStore, folder: str) -> None:
    try:
        keys = store.list_keys(f"{folder}/")
    except OSError:
        log.exception("bytes_not_deleted", key=folder)
        return
    discard(store, keys)
