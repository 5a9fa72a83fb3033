"""What is past its time: files with their bytes, uploads with their parts, the records of old uploads, deliveries and
answers.

The row goes first, then the bytes.
"""

from datetime import datetime, timedelta

from schemas.ids import FileId, ProjectId, UploadId
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.idempotency import IdempotencyRepository
from service.db.tables import FileRow, UploadRow
from service.db.uploads import UploadRepository
from service.db.webhooks import DeliveryRepository
from service.storage.object_store import ObjectStore

BATCH = 100
DELIVERIES_KEPT = timedelta(days=30)
ANSWERS_KEPT = timedelta(days=7)
"""To the repeats of an `Idempotency-Key`: longer than anybody tries again."""
UPLOADS_KEPT = timedelta(days=30)
"""After their end or an hour more: whoever still looks for the File that one became has its answer by then."""
UPLOAD_GRACE = timedelta(hours=1)
"""A request that completes an upload in time may still be reading its parts."""


def sweep_expired_files(database: Database, store: ObjectStore, *, now: datetime) -> int:
    """Return how many were removed, `BATCH` at most."""
    with database.read() as session:
        expired = FileRepository(session).list_expired(now=now, limit=BATCH)
    for file in expired:
        _remove_file(database, store, file)
    return len(expired)


def sweep_expired_uploads(database: Database, _store: ObjectStore, *, now: datetime) -> int:
    """Return how many were closed, `BATCH` at most."""
    with database.read() as session:
        expired = UploadRepository(session).list_expired(now=now - UPLOAD_GRACE, limit=BATCH)
    for upload in expired:
        _close_upload(database, upload)
    return len(expired)


def sweep_parts(database: Database, store: ObjectStore, *, now: datetime) -> int:
    """Those that uploads have left at their end, however long ago. Return how many were removed, `BATCH` at most."""
    with database.write() as session:
        object_keys = UploadRepository(session).remove_parts_of_ended(limit=BATCH)
    for key in object_keys:
        store.delete(key)
    return len(object_keys)


def sweep_old_uploads(database: Database, _store: ObjectStore, *, now: datetime) -> int:
    """Return how many were removed, `BATCH` at most."""
    with database.write() as session:
        return UploadRepository(session).delete_ended(before=now - UPLOADS_KEPT, limit=BATCH)


def sweep_old_deliveries(database: Database, _store: ObjectStore, *, now: datetime) -> int:
    """Return how many were removed, `BATCH` at most."""
    with database.write() as session:
        return DeliveryRepository(session).delete_ended(before=now - DELIVERIES_KEPT, limit=BATCH)


def sweep_old_answers(database: Database, _store: ObjectStore, *, now: datetime) -> int:
    """Return how many were removed, `BATCH` at most."""
    with database.write() as session:
        return IdempotencyRepository(session).delete_old(before=now - ANSWERS_KEPT, limit=BATCH)


def _remove_file(database: Database, store: ObjectStore, file: FileRow) -> None:
    with database.write() as session:
        FileRepository(session).delete(ProjectId(file.project_id), FileId(file.id))
    store.delete(file.object_key)


def _close_upload(database: Database, upload: UploadRow) -> None:
    with database.write() as session:
        uploads = UploadRepository(session)
        row = uploads.find_locked(ProjectId(upload.project_id), upload.id)
        if row is not None and row.status == "pending":
            uploads.close(UploadId(row.id), to="expired")
