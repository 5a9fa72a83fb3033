"""The bytes that a project may keep: asked for before a body is read, and again with the row that keeps it.

Between the two, others of the project may have been faster: a body stops at the room there was at its beginning, and
what then finds no room any more is deleted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import ProjectId, UploadId
from service.clock import Clock
from service.db.engine import Database
from service.db.idempotency import IdempotencyRepository
from service.db.projects import ProjectRepository
from service.db.uploads import UploadRepository
from service.db.usage import UsageRepository
from service.errors import PayloadTooLarge
from service.files.upload_errors import UploadTooLarge


class StoredBytesExceeded(PayloadTooLarge):
    """The project keeps as many bytes as it may."""

    code = "quota_exceeded"


@dataclass(frozen=True, slots=True)
class StorageRoom:
    limit_bytes: int
    stored_bytes: int
    announced_bytes: int = 0
    """Counted as stored already, and still to come."""

    @property
    def free_bytes(self) -> int:
        return max(0, self.limit_bytes - self.stored_bytes) + self.announced_bytes

    def exceeded(self, *, param: str) -> StoredBytesExceeded:
        return StoredBytesExceeded(
            f"The project may keep {self.limit_bytes:,} bytes and keeps {self.stored_bytes:,}, uploads under way and "
            "models included; delete files, models or uploads, or ask the operator for more",
            param=param,
        )


def find_storage_room(
    project_id: ProjectId, idempotency_key: str | None, *, database: Database, clock: Clock
) -> StorageRoom | None:
    """Before a file's body is read. None: there is no limit, or this is a repeat, which gets its first answer."""
    with database.read() as session:
        if idempotency_key is not None and IdempotencyRepository(session).find(project_id, idempotency_key):
            return None
        return _room(session, project_id, now=clock())


def find_room_for_part(
    project_id: ProjectId,
    upload_id: UploadId,
    idempotency_key: str | None,
    *,
    database: Database,
    clock: Clock,
) -> StorageRoom | None:
    """As `find_storage_room`; what the upload announced and has not sent yet is free for it."""
    room = find_storage_room(project_id, idempotency_key, database=database, clock=clock)
    if room is None:
        return None
    with database.read() as session:
        uploads = UploadRepository(session)
        upload, (_, held_bytes) = uploads.find(project_id, upload_id), uploads.measure_parts(upload_id)
    announced_bytes = 0 if upload is None else max(0, upload.size_bytes - held_bytes)
    return StorageRoom(room.limit_bytes, room.stored_bytes, announced_bytes)


@contextmanager
def capped(max_bytes: int, room: StorageRoom | None, *, param: str) -> Iterator[int]:
    """Give how many bytes a body may have. Raises: StoredBytesExceeded, when it is too large for the room alone."""
    if room is None or room.free_bytes >= max_bytes:
        yield max_bytes
        return
    try:
        yield room.free_bytes
    except UploadTooLarge as error:
        raise room.exceeded(param=param) from error


def hold_stored_bytes(session: Session, project_id: ProjectId) -> None:
    """Let nobody else of the project claim any before this transaction ends; for one without a limit nothing."""
    if ProjectRepository(session).get(project_id).max_stored_bytes is not None:
        ProjectRepository(session).lock(project_id)


def claim_stored_bytes(session: Session, project_id: ProjectId, size_bytes: int, *, param: str, now: datetime) -> None:
    """Take so many bytes more, which are taken once the transaction ends. Raises: StoredBytesExceeded."""
    hold_stored_bytes(session, project_id)
    room = _room(session, project_id, now=now)
    if room is not None and size_bytes > room.free_bytes:
        raise room.exceeded(param=param)


def _room(session: Session, project_id: ProjectId, *, now: datetime) -> StorageRoom | None:
    limit_bytes = ProjectRepository(session).get(project_id).max_stored_bytes
    if limit_bytes is None:
        return None
    return StorageRoom(limit_bytes, UsageRepository(session).measure_stored_bytes(project_id, now=now))
