"""Objects without a row: what a kill between bytes and row, or between row and bytes, has left in the store, and what
was left there because a commit was not answered or a delete failed.

Only `files/` and `uploads/` are looked at, only keys whose last segment is an id of ours, and only a day after that id
was made: an upload under way has its bytes before its row. Run folders are their jobs' own.
"""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from schemas.run_layout import FILES, PARTS
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.uploads import UploadRepository
from service.identifiers import made_at
from service.storage.object_store import ObjectStore

BATCH = 500
MIN_AGE = timedelta(days=1)


def sweep_orphans(database: Database, store: ObjectStore, *, now: datetime) -> int:
    """Return how many objects were removed."""
    removed = 0
    for folder in (FILES, PARTS):
        keys = [key for key in store.list_keys(f"{folder}/") if _is_old(key, now=now)]
        for start in range(0, len(keys), BATCH):
            removed += _sweep_batch(database, store, folder, keys[start : start + BATCH])
    return removed


def sweep_leftovers(_database: Database, store: ObjectStore, *, now: datetime) -> int:
    """What writers that were killed left behind, by the store's own clock: `now` is of no use to it."""
    return store.sweep_leftovers()


def _sweep_batch(database: Database, store: ObjectStore, folder: str, keys: list[str]) -> int:
    by_id = {_last_segment(key): key for key in keys}
    with database.read() as session:
        known = _list_known(session, folder, list(by_id))
    orphans = [key for identifier, key in by_id.items() if identifier not in known]
    for key in orphans:
        store.delete(key)
    return len(orphans)


def _list_known(session: Session, folder: str, ids: list[str]) -> set[str]:
    return FileRepository(session).list_known(ids) if folder == FILES else UploadRepository(session).list_known(ids)


def _is_old(key: str, *, now: datetime) -> bool:
    created_at = made_at(_last_segment(key))
    return created_at is not None and created_at < now - MIN_AGE


def _last_segment(key: str) -> str:
    return key.rpartition("/")[2]
