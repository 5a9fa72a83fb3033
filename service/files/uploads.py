"""Uploads in parts: begun, added to, given up. `assembly` puts them together.

A part is bytes first, then the row, under the lock of the upload's row: nothing is added to one that has ended.
"""

import hashlib
import json
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy.orm import Session

from schemas.files import UploadPurpose
from schemas.ids import PartId, ProjectId, UploadId
from schemas.uploads import (
    MAX_PARTS,
    MAX_UPLOAD_BYTES,
    UPLOAD_LIFETIME_S,
    CreateUploadRequest,
    UploadObject,
    UploadPart,
    UploadStatus,
)
from service.clock import Clock, unix_seconds
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.once import OncePer, create_once
from service.db.tables import UploadPartRow, UploadRow
from service.db.uploads import UploadRepository
from service.errors import Conflict, InvalidRequest, NotFound
from service.files.catalog import present_file
from service.files.stored_bytes import claim_stored_bytes, hold_stored_bytes
from service.files.unclaimed_bytes import deleted_unless_kept
from service.files.upload_form import sanitise_filename
from service.identifiers import new_upload_id
from service.nearest import shown
from service.storage.discard import discard
from service.storage.object_store import ObjectStore, StoredObject

PARTS_REMOVED_AT_ONCE = 100
"""By the request that ends their upload: 10,000 would hold it for minutes, so retention takes the others."""


class UploadNotFound(NotFound):
    code = "upload_not_found"


class UploadEnded(Conflict):
    """Nothing more can be done with an upload that was completed or cancelled, or has expired."""

    code = "upload_ended"


class TooManyParts(InvalidRequest):
    code = "too_many_parts"


def create_upload(
    project_id: ProjectId,
    request: CreateUploadRequest,
    *,
    once_per: OncePer | None,
    database: Database,
    clock: Clock,
) -> UploadObject:
    """Raises: StoredBytesExceeded, IdempotencyKeyReused."""
    now = clock()

    def create(session: Session) -> UploadObject:
        claim_stored_bytes(session, project_id, request.bytes, param="bytes", now=now)
        row = _new_row(project_id, request, now=now)
        UploadRepository(session).add(row)
        return present_upload(session, row, now=now)

    return create_once(database, once_per, create, answer_type=UploadObject, now=now)


def find_upload(project_id: ProjectId, upload_id: str, *, database: Database, clock: Clock) -> UploadObject:
    """Raises: UploadNotFound."""
    with database.read() as session:
        row = UploadRepository(session).find(project_id, upload_id)
        if row is None:
            raise upload_not_found(upload_id)
        return present_upload(session, row, now=clock())


def check_pending(project_id: ProjectId, upload_id: str, *, database: Database, clock: Clock) -> UploadId:
    """Before a part's body is read. Raises: UploadNotFound, UploadEnded."""
    with database.read() as session:
        row = UploadRepository(session).find(project_id, upload_id)
    return UploadId(require_pending(row, upload_id, now=clock()).id)


def add_part(
    project_id: ProjectId,
    upload_id: UploadId,
    part_id: PartId,
    stored: StoredObject,
    *,
    once_per: OncePer | None,
    database: Database,
    store: ObjectStore,
    clock: Clock,
) -> UploadPart:
    """Write the row of bytes that lie in the store; when it is not written, they go.

    Raises: UploadNotFound, UploadEnded, TooManyParts, StoredBytesExceeded, IdempotencyKeyReused.
    """
    now = clock()

    def create(session: Session) -> UploadPart:
        uploads = UploadRepository(session)
        hold_stored_bytes(session, project_id)  # before the upload: everybody takes the two in this order
        upload = require_pending(uploads.find_locked(project_id, upload_id), upload_id, now=now)
        more_bytes = _check_room(uploads, upload, stored.size_bytes)
        claim_stored_bytes(session, project_id, more_bytes, param="data", now=now)
        row = UploadPartRow(
            id=part_id, upload_id=upload_id, object_key=stored.key, size_bytes=stored.size_bytes, created_at=now
        )
        uploads.add_part(row)
        return UploadPart(id=row.id, object="upload.part", created_at=unix_seconds(now), upload_id=upload_id)

    with deleted_unless_kept(store, stored.key) as written:
        answer = create_once(database, once_per, create, answer_type=UploadPart, now=now)
        written.is_kept = answer.id == part_id
        return answer


def cancel_upload(
    project_id: ProjectId, upload_id: str, *, database: Database, store: ObjectStore, clock: Clock
) -> UploadObject:
    """Give it up with its parts; a second time changes nothing. Raises: UploadNotFound, UploadEnded."""
    now = clock()
    with database.write() as session:
        uploads = UploadRepository(session)
        row = uploads.find_locked(project_id, upload_id)
        if row is None or row.status != "cancelled":
            row = require_pending(row, upload_id, now=now)
            uploads.close(UploadId(row.id), to="cancelled")
            session.refresh(row)
        object_keys = uploads.remove_parts(UploadId(row.id), limit=PARTS_REMOVED_AT_ONCE)
        answer = present_upload(session, row, now=now)
    discard(store, object_keys)
    return answer


def part_fingerprint(upload_id: UploadId, stored: StoredObject) -> str:
    """SHA-256 of what the form said, whatever its boundary."""
    return hashlib.sha256(json.dumps(["POST", f"/v1/uploads/{upload_id}/parts", stored.sha256]).encode()).hexdigest()


def present_upload(session: Session, row: UploadRow, *, now: datetime) -> UploadObject:
    file = None
    if row.file_id is not None:
        file = FileRepository(session).find(ProjectId(row.project_id), row.file_id, now=now)
    return UploadObject(
        id=row.id,
        object="upload",
        bytes=row.size_bytes,
        created_at=unix_seconds(row.created_at),
        expires_at=unix_seconds(row.expires_at),
        filename=row.filename,
        purpose=cast(UploadPurpose, row.purpose),
        status=status_of(row, now=now),
        file=None if file is None else present_file(file),
    )


def require_pending(row: UploadRow | None, upload_id: str, *, now: datetime) -> UploadRow:
    """Raises: UploadNotFound, UploadEnded."""
    if row is None:
        raise upload_not_found(upload_id)
    status = status_of(row, now=now)
    if status != "pending":
        raise UploadEnded(f"The upload {row.id} is {status}; create a new one", param="upload_id")
    return row


def status_of(row: UploadRow, *, now: datetime) -> UploadStatus:
    is_late = row.status == "pending" and row.expires_at <= now
    return "expired" if is_late else cast(UploadStatus, row.status)


def upload_not_found(upload_id: str) -> UploadNotFound:
    return UploadNotFound(f"The upload {shown(upload_id)} does not exist; POST /v1/uploads creates one")


def _new_row(project_id: ProjectId, request: CreateUploadRequest, *, now: datetime) -> UploadRow:
    return UploadRow(
        id=new_upload_id(),
        project_id=project_id,
        filename=sanitise_filename(request.filename),
        purpose=request.purpose,
        size_bytes=request.bytes,
        file_lifetime_s=None if request.expires_after is None else request.expires_after.seconds,
        status="pending",
        created_at=now,
        expires_at=now + timedelta(seconds=UPLOAD_LIFETIME_S),
        file_id=None,
        completed_part_ids=None,
    )


def _check_room(uploads: UploadRepository, upload: UploadRow, size_bytes: int) -> int:
    """Return by how much the upload grows over what it announced.

    A part may be sent again, so that more may lie there than the file will have; but not without end.
    """
    parts, held_bytes = uploads.measure_parts(UploadId(upload.id))
    if parts >= MAX_PARTS or held_bytes + size_bytes > MAX_UPLOAD_BYTES:
        raise TooManyParts(
            f"The upload has {parts:,} parts of {held_bytes:,} bytes; at most {MAX_PARTS:,} of {MAX_UPLOAD_BYTES:,} "
            "together are taken: complete it, or cancel it and send larger parts once",
            param="data",
        )
    return max(upload.size_bytes, held_bytes + size_bytes) - max(upload.size_bytes, held_bytes)
