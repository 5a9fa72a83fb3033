"""First answers, kept to be told again."""

from datetime import datetime

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.tables import IdempotencyRow


class IdempotencyRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, project_id: ProjectId, key: str) -> IdempotencyRow | None:
        return self._session.get(IdempotencyRow, (project_id, key))

    def add(self, answer: IdempotencyRow) -> None:
        """Raises: sqlalchemy.exc.IntegrityError when the key was used meanwhile."""
        self._session.add(answer)
        self._session.flush()

    def delete_old(self, *, before: datetime, limit: int) -> int:
        """Remove up to `limit` of those kept since before then; return how many."""
        keys = tuple_(IdempotencyRow.project_id, IdempotencyRow.key)
        old = select(IdempotencyRow.project_id, IdempotencyRow.key).where(IdempotencyRow.created_at < before)
        removed = self._session.execute(
            delete(IdempotencyRow).where(keys.in_(old.limit(limit))).returning(IdempotencyRow.key)
        )
        return len(removed.all())
