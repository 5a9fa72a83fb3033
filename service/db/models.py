"""The `ft:` models of a project."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from schemas.ids import FileId, JobId, ProjectId
from service.db.tables import ModelRow


class ModelRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, model: ModelRow) -> None:
        self._session.add(model)
        self._session.flush()

    def find(self, project_id: ProjectId, name: str) -> ModelRow | None:
        return self._session.scalars(
            select(ModelRow).where(ModelRow.project_id == project_id, ModelRow.name == name)
        ).first()

    def list_of_project(self, project_id: ProjectId) -> list[ModelRow]:
        """Newest first. The SDK's model list is not paged."""
        query = select(ModelRow).where(ModelRow.project_id == project_id).order_by(ModelRow.created_at.desc())
        return list(self._session.scalars(query))

    def list_newest_names(self, project_id: ProjectId, *, limit: int) -> list[str]:
        query = select(ModelRow.name).where(ModelRow.project_id == project_id).order_by(ModelRow.created_at.desc())
        return list(self._session.scalars(query.limit(limit)))

    def list_adapter_keys(self, job_id: JobId) -> set[str]:
        """Of what the job made: its result and its kept checkpoints."""
        return set(self._session.scalars(select(ModelRow.adapter_key).where(ModelRow.job_id == job_id)))

    def is_adapter_used(self, adapter_key: str) -> bool:
        """A job's result and its last checkpoint may be one adapter under two names."""
        query = select(ModelRow.name).where(ModelRow.adapter_key == adapter_key).limit(1)
        return self._session.scalar(query) is not None

    def forget_archive(self, project_id: ProjectId, file_id: FileId) -> None:
        """Of the models whose archive was this file."""
        self._session.execute(
            update(ModelRow)
            .where(ModelRow.project_id == project_id, ModelRow.archive_file_id == file_id)
            .values(archive_file_id=None)
        )

    def delete(self, project_id: ProjectId, name: str) -> ModelRow | None:
        """Return the row this call removed."""
        removed = self._session.execute(
            delete(ModelRow).where(ModelRow.project_id == project_id, ModelRow.name == name).returning(ModelRow)
        )
        return removed.scalars().first()
