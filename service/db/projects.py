"""Projects, and the API keys that open them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, bindparam, or_, select
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.rate_limits import ALL_REQUESTS
from service.db.tables import ApiKeyRow, ProjectRow, RateLimitRow, UtcDateTime


@dataclass(frozen=True, slots=True)
class OpenKey:
    """What a request may do by its key, and how many like it: null for no limit."""

    project_id: ProjectId
    scopes: list[str]
    max_requests_per_1_minute: int | None
    max_requests_per_1_day: int | None


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

    def get(self, project_id: ProjectId) -> ProjectRow:
        """One that something refers to, and so is there."""
        return self._session.get_one(ProjectRow, project_id)

    def lock(self, project_id: ProjectId) -> ProjectRow:
        """The project, which no other transaction changes or counts by before this one ends."""
        return self._session.get_one(
            ProjectRow, project_id, with_for_update={"key_share": True}, populate_existing=True
        )

    def list_ids(self) -> list[ProjectId]:
        return [ProjectId(project_id) for project_id in self._session.scalars(select(ProjectRow.id))]

    def find_by_name(self, name: str) -> ProjectRow | None:
        """The oldest of that name."""
        return self._session.scalars(select(ProjectRow).where(ProjectRow.name == name).order_by(ProjectRow.id)).first()

    def list_after(self, *, after: str | None, limit: int, with_archived: bool) -> list[ProjectRow]:
        """Newest first."""
        query = select(ProjectRow)
        if after is not None:
            query = query.where(ProjectRow.id < after)
        if not with_archived:
            query = query.where(ProjectRow.archived_at.is_(None))
        return list(self._session.scalars(query.order_by(ProjectRow.id.desc()).limit(limit)))

    def find_open_keys(self, sha256s: Collection[str], *, now: datetime) -> dict[str, OpenKey]:
        """By their hashes, those that are neither revoked nor expired, of projects that are not archived."""
        found = self._session.execute(_FIND_OPEN_KEYS, {"sha256s": list(sha256s), "now": now})
        return {sha256: OpenKey(ProjectId(project_id), *limits) for sha256, project_id, *limits in found}

    def knows_key(self, sha256: str) -> bool:
        """Whether the key was ever given, revoked or not."""
        return self._session.scalar(select(ApiKeyRow.id).where(ApiKeyRow.sha256 == sha256)) is not None


# Asked at each request: to build a statement costs as much as to run it, and the ORM's way as much again. So it is made
# once, of tables.
_KEYS, _LIMITS, _PROJECTS = ApiKeyRow.__table__, RateLimitRow.__table__, ProjectRow.__table__
_KEY, _LIMIT, _PROJECT = _KEYS.c, _LIMITS.c, _PROJECTS.c
_FIND_OPEN_KEYS = (
    select(_KEY.sha256, _KEY.project_id, _KEY.scopes, _LIMIT.max_requests_per_1_minute, _LIMIT.max_requests_per_1_day)
    .join_from(_KEYS, _PROJECTS, _PROJECT.id == _KEY.project_id)
    .outerjoin(_LIMITS, and_(_LIMIT.project_id == _KEY.project_id, _LIMIT.model == ALL_REQUESTS))
    .where(
        _KEY.sha256.in_(bindparam("sha256s", expanding=True)),
        _KEY.revoked_at.is_(None),
        or_(_KEY.expires_at.is_(None), _KEY.expires_at > bindparam("now", type_=UtcDateTime())),
        _PROJECT.archived_at.is_(None),
    )
)
