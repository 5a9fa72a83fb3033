"""Files as a project sees them: bytes first, then the row; the row goes first, then the bytes.

A kill between the two leaves bytes without a row, never a row without bytes.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy.orm import Session

from schemas.files import FileDeleted, FileObject, Purpose
from schemas.ids import FileId, ProjectId
from schemas.pages import BoundedPage, bounded_page
from schemas.run_layout import job_of
from service.clock import Clock, unix_seconds
from service.cursors import check_cursor
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.once import OncePer, create_once
from service.db.tables import FileRow
from service.errors import NotFound
from service.files.downloads import ByteRange, content_disposition, parse_range
from service.files.receiving import ReceivedUpload
from service.files.stored_bytes import claim_stored_bytes
from service.files.unclaimed_bytes import deleted_unless_kept
from service.nearest import shown
from service.storage.discard import discard
from service.storage.object_store import ObjectNotFound, ObjectStore


class FileNotFound(NotFound):
    code = "file_not_found"


@dataclass(frozen=True, slots=True)
class FileQuery:
    purpose: Purpose | None
    after: str | None
    limit: int
    newest_first: bool


@dataclass(frozen=True, slots=True)
class Download:
    """Either a URL to go to, or the bytes: all of them, or one range."""

    filename: str
    url: str | None
    size_bytes: int
    byte_range: ByteRange | None
    chunks: Iterator[bytes]


def add_file(
    project_id: ProjectId,
    file_id: FileId,
    upload: ReceivedUpload,
    *,
    once_per: OncePer | None,
    database: Database,
    store: ObjectStore,
    clock: Clock,
) -> FileObject:
    """Write the row of bytes that lie in the store; when it is not written, they go.

    Raises: StoredBytesExceeded, IdempotencyKeyReused.
    """
    now = clock()

    def create(session: Session) -> FileObject:
        claim_stored_bytes(session, project_id, upload.size_bytes, param="file", now=now)
        row = new_file_row(project_id, file_id, upload, now=now)
        FileRepository(session).add(row)
        return present_file(row)

    with deleted_unless_kept(store, upload.object_key) as written:
        answer = create_once(database, once_per, create, answer_type=FileObject, now=now)
        written.is_kept = answer.id == file_id
        return answer


def upload_fingerprint(upload: ReceivedUpload) -> str:
    """SHA-256 of what the form said, whatever its boundary and the order of its fields."""
    said = [upload.filename, upload.purpose, upload.sha256, upload.expires_after_s]
    return hashlib.sha256(json.dumps(["POST", "/v1/files", said]).encode()).hexdigest()


def find_file(project_id: ProjectId, file_id: str, *, database: Database, clock: Clock) -> FileObject:
    with database.read() as session:
        return present_file(_require_file(session, project_id, file_id, now=clock()))


def list_files(project_id: ProjectId, query: FileQuery, *, database: Database, clock: Clock) -> BoundedPage[FileObject]:
    """Raises: InvalidRequest."""
    check_cursor(query.after, prefix="file-", kind="a file")
    with database.read() as session:
        rows = FileRepository(session).list_after(
            project_id,
            after=query.after,
            limit=query.limit + 1,
            purpose=query.purpose,
            newest_first=query.newest_first,
            now=clock(),
        )
    return bounded_page([present_file(row) for row in rows], limit=query.limit)


def delete_file(
    project_id: ProjectId, file_id: str, *, database: Database, store: ObjectStore, clock: Clock
) -> FileDeleted:
    with database.write() as session:
        row = _require_file(session, project_id, file_id, now=clock())
        FileRepository(session).delete(project_id, FileId(row.id))
        ModelRepository(session).forget_archive(project_id, FileId(row.id))
        if (job_id := job_of(row.object_key)) is not None:
            JobRepository(session).note_leftovers(job_id, now=clock())
    discard(store, [row.object_key])
    return FileDeleted(id=row.id, object="file", deleted=True)


def open_download(
    project_id: ProjectId,
    file_id: str,
    *,
    range_header: str | None,
    database: Database,
    store: ObjectStore,
    clock: Clock,
) -> Download:
    """Raises: FileNotFound, RangeNotSatisfiable."""
    with database.read() as session:
        row = _require_file(session, project_id, file_id, now=clock())
    url = store.download_url(row.object_key, content_disposition=content_disposition(row.filename))
    if url is not None:
        return Download(row.filename, url, row.size_bytes, None, iter(()))
    byte_range = parse_range(range_header, size_bytes=row.size_bytes)
    start, end = (byte_range.start, byte_range.end) if byte_range is not None else (0, None)
    try:
        chunks = store.stream(row.object_key, start=start, end=end)
    except ObjectNotFound as error:  # deleted since the row was read
        raise _not_found(file_id) from error
    return Download(row.filename, None, row.size_bytes, byte_range, chunks)


def new_file_row(project_id: ProjectId, file_id: FileId, upload: ReceivedUpload, *, now: datetime) -> FileRow:
    lifetime_s = upload.expires_after_s
    return FileRow(
        id=file_id,
        project_id=project_id,
        filename=upload.filename,
        purpose=upload.purpose,
        object_key=upload.object_key,
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        created_at=now,
        expires_at=None if lifetime_s is None else now + timedelta(seconds=lifetime_s),
    )


def present_file(row: FileRow) -> FileObject:
    return FileObject(
        id=row.id,
        object="file",
        bytes=row.size_bytes,
        created_at=unix_seconds(row.created_at),
        expires_at=None if row.expires_at is None else unix_seconds(row.expires_at),
        filename=row.filename,
        purpose=cast(Purpose, row.purpose),
        status="processed",
        status_details=None,
    )


def _require_file(session: Session, project_id: ProjectId, file_id: str, *, now: datetime) -> FileRow:
    row = FileRepository(session).find(project_id, file_id, now=now)
    if row is None:
        raise _not_found(file_id)
    return row


def _not_found(file_id: str) -> FileNotFound:
    return FileNotFound(f"The file {shown(file_id)} does not exist; GET /v1/files lists those that do")
