"""Uploads in parts. Whoever changes an upload or its parts locks the upload's row first."""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import Session

from schemas.ids import FileId, ProjectId, UploadId
from schemas.uploads import UploadStatus
from service.db.tables import UploadPartRow, UploadRow


class UploadRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, upload: UploadRow) -> None:
        self._session.add(upload)
        self._session.flush()

    def find(self, project_id: ProjectId, upload_id: str) -> UploadRow | None:
        query = select(UploadRow).where(UploadRow.project_id == project_id, UploadRow.id == upload_id)
        return self._session.scalars(query).first()

    def find_locked(self, project_id: ProjectId, upload_id: str) -> UploadRow | None:
        """Nobody else changes it before this writing transaction ends."""
        query = select(UploadRow).where(UploadRow.project_id == project_id, UploadRow.id == upload_id)
        return self._session.scalars(query.with_for_update()).first()

    def close(self, upload_id: UploadId, *, to: UploadStatus) -> None:
        self._session.execute(update(UploadRow).where(UploadRow.id == upload_id).values(status=to))

    def complete(self, upload_id: UploadId, *, file_id: FileId, part_ids: list[str]) -> None:
        completed = {"status": "completed", "file_id": file_id, "completed_part_ids": part_ids}
        self._session.execute(update(UploadRow).where(UploadRow.id == upload_id).values(**completed))

    def add_part(self, part: UploadPartRow) -> None:
        self._session.add(part)
        self._session.flush()

    def measure_parts(self, upload_id: UploadId) -> tuple[int, int]:
        """Return how many parts there are, and their bytes together."""
        query = select(func.count(), func.coalesce(func.sum(UploadPartRow.size_bytes), 0))
        parts, size_bytes = self._session.execute(query.where(UploadPartRow.upload_id == upload_id)).one()
        return parts, int(size_bytes)

    def find_parts(self, upload_id: UploadId) -> dict[str, UploadPartRow]:
        """By id."""
        query = select(UploadPartRow).where(UploadPartRow.upload_id == upload_id)
        return {part.id: part for part in self._session.scalars(query)}

    def remove_parts(self, upload_id: UploadId, *, limit: int) -> list[str]:
        """Remove up to `limit` of the upload's; return their object keys."""
        return self._remove_parts(UploadPartRow.upload_id == upload_id, limit=limit)

    def remove_parts_of_ended(self, *, limit: int) -> list[str]:
        """Remove up to `limit` that uploads have left at their end; return their object keys."""
        has_ended = exists().where(UploadRow.id == UploadPartRow.upload_id, UploadRow.status != "pending")
        return self._remove_parts(has_ended, limit=limit)

    def list_expired(self, *, now: datetime, limit: int) -> list[UploadRow]:
        """Uploads past their time that nobody has closed, oldest first."""
        query = select(UploadRow).where(UploadRow.status == "pending", UploadRow.expires_at <= now)
        return list(self._session.scalars(query.order_by(UploadRow.expires_at).limit(limit)))

    def delete_ended(self, *, before: datetime, limit: int) -> int:
        """Remove up to `limit` that have ended and, had they not, had expired before then; return how many."""
        has_ended = UploadRow.status.in_(["completed", "cancelled", "expired"])
        has_parts = exists().where(UploadPartRow.upload_id == UploadRow.id)
        old = select(UploadRow.id).where(has_ended, UploadRow.expires_at < before, ~has_parts).limit(limit)
        removed = self._session.execute(delete(UploadRow).where(UploadRow.id.in_(old)).returning(UploadRow.id))
        return len(removed.all())

    def list_known(self, part_ids: list[str]) -> set[str]:
        """Those of the ids that have a row."""
        return set(self._session.scalars(select(UploadPartRow.id).where(UploadPartRow.id.in_(part_ids))))

    def _remove_parts(self, condition: ColumnElement[bool], *, limit: int) -> list[str]:
        some = select(UploadPartRow.id).where(condition).limit(limit)
        removed = self._session.execute(
            delete(UploadPartRow).where(UploadPartRow.id.in_(some)).returning(UploadPartRow.object_key)
        )
        return list(removed.scalars())
