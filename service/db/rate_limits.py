"""Rate limits of projects; a project without a row for a model has none."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.tables import JobRow, RateLimitRow
from service.identifiers import earliest_job_id

ALL_REQUESTS = "*"
"""The model of what limits requests of any kind."""


class RateLimitRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, project_id: ProjectId, model: str) -> RateLimitRow | None:
        return self._session.get(RateLimitRow, (project_id, model))

    def list_of_project(self, project_id: ProjectId) -> dict[str, RateLimitRow]:
        """By model."""
        query = select(RateLimitRow).where(RateLimitRow.project_id == project_id)
        return {row.model: row for row in self._session.scalars(query)}

    def add(self, limit: RateLimitRow) -> None:
        self._session.add(limit)
        self._session.flush()

    def newest_jobs(self, project_id: ProjectId, base_model: str, *, since: datetime, limit: int) -> list[datetime]:
        """When the newest jobs on a base model or what was tuned from it were made, newest first."""
        query = (
            select(JobRow.created_at)
            .where(
                JobRow.project_id == project_id,
                JobRow.id > earliest_job_id(since),
                JobRow.fine_tuned_model.startswith(f"ft:{base_model}:", autoescape=True),
            )
            .order_by(JobRow.id.desc())
            .limit(limit)
        )
        return list(self._session.scalars(query))
