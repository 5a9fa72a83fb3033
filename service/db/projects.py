"""Projects and their API keys."""

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.tables import ApiKeyRow, ProjectRow


class ProjectRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, project: ProjectRow) -> None:
        self._session.add(project)
        self._session.flush()

    def add_key(self, key: ApiKeyRow) -> None:
        self._session.add(key)
        self._session.flush()

    def find(self, project_id: ProjectId) -> ProjectRow | None:
        return self._session.get(ProjectRow, project_id)

    def lock(self, project_id: ProjectId) -> ProjectRow:
        """The project, which no other transaction changes or counts by before this one ends."""
        return self._session.get_one(ProjectRow, project_id, with_for_update={"key_share": True})

    def find_by_name(self, name: str) -> ProjectRow | None:
        return self._session.scalars(select(ProjectRow).where(ProjectRow.name == name)).first()

    def find_project_of_key(self, sha256: str, *, now: datetime) -> ProjectId | None:
        """The project of a key that is neither revoked nor expired."""
        found = self._session.scalar(
            select(ApiKeyRow.project_id).where(
                ApiKeyRow.sha256 == sha256,
                ApiKeyRow.revoked_at.is_(None),
                or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now),
            )
        )
        return ProjectId(found) if found is not None else None
