"""First answers, kept to be told again."""

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
