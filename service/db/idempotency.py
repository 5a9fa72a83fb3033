"""First answers, kept to be told again."""

from datetime import datetime
from typing import Final, Literal

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.tables import IdempotencyRow

ORGANIZATION: Final = "organization"
IdempotencyKeyOwner = ProjectId | Literal["organization"]
"""Whose `Idempotency-Key` it is: another's of the same text is another key."""


class IdempotencyRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, owner: IdempotencyKeyOwner, key: str) -> IdempotencyRow | None:
        return self._session.get(IdempotencyRow, (owner, key))

    def add(self, answer: IdempotencyRow) -> None:
        """Raises: sqlalchemy.exc.IntegrityError when the key was used meanwhile."""
        self._session.add(answer)
        self._session.flush()

    def delete_old(self, *, before: datetime, limit: int) -> int:
        """Remove up to `limit` of those kept since before then; return how many."""
        keys = tuple_(IdempotencyRow.owner, IdempotencyRow.key)
        old = select(IdempotencyRow.owner, IdempotencyRow.key).where(IdempotencyRow.created_at < before)
        removed = self._session.execute(
            delete(IdempotencyRow).where(keys.in_(old.limit(limit))).returning(IdempotencyRow.key)
        )
        return len(removed.all())
