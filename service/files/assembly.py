"""Put an upload's parts together: the whole file's bytes first, then, in one transaction, its row and the upload's end.

Each request writes under a File id of its own, so of several at once, or of one that was killed and its repeat, one
gets its row in and the others' bytes go. A repeat with the same parts gets the first one's answer.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy.orm import Session

from schemas.files import UploadPurpose
from schemas.ids import FileId, ProjectId, UploadId
from schemas.run_layout import file_key
from schemas.uploads import CompleteUploadRequest, UploadObject
from service.clock import Clock
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.once import OncePer, create_once
from service.db.tables import FileRow, UploadPartRow, UploadRow
from service.db.uploads import UploadRepository
from service.errors import InternalError, InvalidRequest, Unavailable
from service.files.catalog import new_file_row
from service.files.receiving import ReceivedUpload
from service.files.unclaimed_bytes import deleted_unless_kept
from service.files.uploads import PARTS_REMOVED_AT_ONCE, present_upload, require_pending, upload_not_found
from service.identifiers import new_file_id
from service.nearest import shown
from service.storage.discard import discard
from service.storage.object_store import ObjectNotFound, ObjectStore, StoredObject


class BytesDiffer(InvalidRequest):
    """The parts are not the file that was announced."""

    code = "bytes_mismatch"


class ChecksumDiffers(InvalidRequest):
    code = "md5_mismatch"


@dataclass(frozen=True, slots=True)
class Completion:
    project_id: ProjectId
    upload_id: str
    """As the user wrote it."""
    request: CompleteUploadRequest
    once_per: OncePer | None


class _PartsGone(Exception):
    """Another request ended the upload while this one read its parts."""


def complete_upload(completion: Completion, *, database: Database, store: ObjectStore, clock: Clock) -> UploadObject:
    """Raises: UploadNotFound, UploadEnded, InvalidRequest, Unavailable, IdempotencyKeyReused."""
    now = clock()  # an upload that was in time at the start of this is in time at its end
    with database.read() as session:
        # Before the upload: another request that ends it meanwhile takes them away, and is then seen to have ended it.
        there = UploadRepository(session).find_parts(UploadId(completion.upload_id))
        row = _require_upload(session, completion)
        if _is_repeat(row, completion.request):
            return present_upload(session, row, now=now)
        parts = _choose_parts(there, row, completion.request, now=now)
    file_id = new_file_id()
    try:
        stored = _write_file(file_id, parts, completion.request.md5, store=store)
    except _PartsGone:
        return _follow_other_request(completion, database=database, now=now)
    freed: list[str] = []
    with deleted_unless_kept(store, stored.key) as written:
        answer = _record(completion, file_id, stored, freed, database=database, now=now)
        written.is_kept = answer.file is not None and answer.file.id == file_id
    discard(store, freed)
    return answer


def _require_upload(session: Session, completion: Completion) -> UploadRow:
    row = UploadRepository(session).find(completion.project_id, completion.upload_id)
    if row is None:
        raise upload_not_found(completion.upload_id)
    return row


def _is_repeat(row: UploadRow, request: CompleteUploadRequest) -> bool:
    return row.status == "completed" and row.completed_part_ids == request.part_ids


def _choose_parts(
    there: dict[str, UploadPartRow], row: UploadRow, request: CompleteUploadRequest, *, now: datetime
) -> list[UploadPartRow]:
    """The named parts in order. Raises: UploadEnded, InvalidRequest."""
    require_pending(row, row.id, now=now)
    left = dict(there)
    parts: list[UploadPartRow] = []
    for index, part_id in enumerate(request.part_ids):
        part = left.pop(part_id, None)
        if part is None:
            message = f"The part {shown(part_id)} is none of this upload, or named twice; name each part's id once"
            raise InvalidRequest(message, param=f"part_ids.{index}")
        parts.append(part)
    size_bytes = sum(part.size_bytes for part in parts)
    if size_bytes != row.size_bytes:
        raise BytesDiffer(
            f"The parts have {size_bytes:,} bytes together and the upload was announced with {row.size_bytes:,}; "
            "name every part, once, or create an upload of the right size",
            param="part_ids",
        )
    return parts


def _write_file(file_id: FileId, parts: list[UploadPartRow], md5: str | None, *, store: ObjectStore) -> StoredObject:
    """Raises: ChecksumDiffers, Unavailable, _PartsGone; nothing is left then."""
    try:
        return store.write(file_key(file_id), _checked(_joined(parts, store), md5))
    except ObjectNotFound as error:
        raise _PartsGone from error
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise Unavailable(f"The file could not be stored ({cause}); try again later, or tell the operator") from error


def _joined(parts: list[UploadPartRow], store: ObjectStore) -> Iterator[bytes]:
    for part in parts:
        yield from store.stream(part.object_key)


def _checked(chunks: Iterator[bytes], md5: str | None) -> Iterator[bytes]:
    """Raise within the write when the digest differs: the store then keeps nothing."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        if md5 is not None:
            digest.update(chunk)
        yield chunk
    if md5 is not None and digest.hexdigest() != md5.lower():
        found = digest.hexdigest()
        raise ChecksumDiffers(
            f"The parts in this order have the md5 {found}, not {md5}; check the order, or send them again",
            param="md5",
        )


def _follow_other_request(completion: Completion, *, database: Database, now: datetime) -> UploadObject:
    """Raises: UploadEnded; InternalError when nobody ended the upload and its bytes are gone all the same."""
    with database.read() as session:
        row = _require_upload(session, completion)
        if _is_repeat(row, completion.request):
            return present_upload(session, row, now=now)
        require_pending(row, row.id, now=now)
    raise InternalError(
        f"Bytes of the upload {row.id} are gone from the store; create a new one, and tell the operator"
    )


def _record(
    completion: Completion,
    file_id: FileId,
    stored: StoredObject,
    freed: list[str],
    *,
    database: Database,
    now: datetime,
) -> UploadObject:
    """Write the rows; `freed` takes the keys of parts that go after the commit; the others go with retention."""

    def create(session: Session) -> UploadObject:
        uploads = UploadRepository(session)
        row = uploads.find_locked(completion.project_id, completion.upload_id)
        if row is None or not _is_repeat(row, completion.request):
            row = require_pending(row, completion.upload_id, now=now)
            FileRepository(session).add(_file_row(row, file_id, stored, now=now))
            uploads.complete(UploadId(row.id), file_id=file_id, part_ids=completion.request.part_ids)
            freed[:] = uploads.remove_parts(UploadId(row.id), limit=PARTS_REMOVED_AT_ONCE)
            session.refresh(row)
        return present_upload(session, row, now=now)

    return create_once(database, completion.once_per, create, answer_type=UploadObject, now=now)


def _file_row(row: UploadRow, file_id: FileId, stored: StoredObject, *, now: datetime) -> FileRow:
    upload = ReceivedUpload(
        filename=row.filename,
        purpose=cast(UploadPurpose, row.purpose),
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        expires_after_s=row.file_lifetime_s,
        object_key=stored.key,
    )
    return new_file_row(ProjectId(row.project_id), file_id, upload, now=now)
