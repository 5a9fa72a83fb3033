"""The audit log: entries are added and read, never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.db.tables import AuditLogRow


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is empty or None filters nothing."""

    types: Sequence[str] = ()
    actor_key_ids: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    subject_ids: Sequence[str] = ()
    since: datetime | None = None
    """Inclusive."""
    before: datetime | None = None
    """Exclusive."""

    def conditions(self) -> list[ColumnElement[bool]]:
        wanted = (
            (AuditLogRow.type, self.types),
            (AuditLogRow.actor_key_id, self.actor_key_ids),
            (AuditLogRow.project_id, self.project_ids),
            (AuditLogRow.subject_id, self.subject_ids),
        )
        conditions: list[ColumnElement[bool]] = [column.in_(values) for column, values in wanted if values]
        if self.since is not None:
            conditions.append(AuditLogRow.effective_at >= self.since)
        if self.before is not None:
            conditions.append(AuditLogRow.effective_at < self.before)
        return conditions


class AuditLogRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, entry: AuditLogRow) -> None:
        self._session.add(entry)
        self._session.flush()

    def list_after(
        self, *, matching: AuditFilter, after: str | None, before: str | None, limit: int
    ) -> list[AuditLogRow]:
        """Newest first; `before`: those that are newer than that one, the nearest of them."""
        query = select(AuditLogRow).where(*matching.conditions())
        if after is not None:
            query = query.where(AuditLogRow.id < after)
        if before is None:
            return list(self._session.scalars(query.order_by(AuditLogRow.id.desc()).limit(limit)))
        nearest = query.where(AuditLogRow.id > before).order_by(AuditLogRow.id.asc()).limit(limit)
        return list(self._session.scalars(nearest))[::-1]
