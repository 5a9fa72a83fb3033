"""Files of a project. An expired file is as good as deleted."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, or_, select
from sqlalchemy.orm import Session

from schemas.ids import FileId, ProjectId
from service.db.tables import FileRow


class FileRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, file: FileRow) -> None:
        self._session.add(file)
        self._session.flush()

    def find(self, project_id: ProjectId, file_id: str, *, now: datetime) -> FileRow | None:
        return self._session.scalars(_live(project_id, now).where(FileRow.id == file_id)).first()

    def list_any(self, file_ids: Collection[str], *, now: datetime) -> list[FileRow]:
        """For the dispatcher, which serves all projects."""
        return list(self._session.scalars(select(FileRow).where(FileRow.id.in_(file_ids), _is_live(now))))

    def list_after(
        self,
        project_id: ProjectId,
        *,
        after: str | None,
        limit: int,
        purpose: str | None,
        newest_first: bool,
        now: datetime,
    ) -> list[FileRow]:
        query = _live(project_id, now)
        if purpose is not None:
            query = query.where(FileRow.purpose == purpose)
        if after is not None:
            query = query.where(FileRow.id < after if newest_first else FileRow.id > after)
        order = FileRow.id.desc() if newest_first else FileRow.id.asc()
        return list(self._session.scalars(query.order_by(order).limit(limit)))

    def list_expired(self, *, now: datetime, limit: int) -> list[FileRow]:
        """Of all projects, oldest first."""
        query = select(FileRow).where(FileRow.expires_at <= now).order_by(FileRow.expires_at).limit(limit)
        return list(self._session.scalars(query))

    def list_known(self, file_ids: list[str]) -> set[str]:
        """Those of the ids that have a row, expired or not."""
        return set(self._session.scalars(select(FileRow.id).where(FileRow.id.in_(file_ids))))

    def has_any(self) -> bool:
        """Whether there is a row at all, expired or not: then something was written to the store."""
        return self._session.scalars(select(FileRow.id).limit(1)).first() is not None

    def delete(self, project_id: ProjectId, file_id: FileId) -> bool:
        """True when this call removed the row."""
        removed = self._session.execute(
            delete(FileRow).where(FileRow.project_id == project_id, FileRow.id == file_id).returning(FileRow.id)
        )
        return removed.first() is not None


def _live(project_id: ProjectId, now: datetime) -> Select[FileRow]:
    return select(FileRow).where(FileRow.project_id == project_id, _is_live(now))


def _is_live(now: datetime) -> ColumnElement[bool]:
    return or_(FileRow.expires_at.is_(None), FileRow.expires_at > now)
