"""The model a job starts from: a base model of the registry, with an adapter on it when the job names an `ft:` one."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.models import ModelRepository
from service.db.tables import JobRow, ModelRow
from service.dispatcher.context import JobFailure
from service.registry import BaseModelEntry, Registry


@dataclass(frozen=True, slots=True)
class ModelOfJob:
    base_id: str
    entry: BaseModelEntry
    adapter: ModelRow | None


class ModelGone(Exception):
    """The model was deleted, or its base left the registry, after the job was created."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failure = JobFailure(
            "model_not_found",
            f"The model {name} is no longer available; GET /v1/models lists those that are.",
            "model",
        )


def find_model(session: Session, job: JobRow, registry: Registry) -> ModelOfJob:
    """Raises: ModelGone."""
    return model_of(job, find_adapter(session, job, registry), registry)


def find_adapter(session: Session, job: JobRow, registry: Registry) -> ModelRow | None:
    """None: the job names a base model, or the adapter is gone."""
    return None if job.model in registry else ModelRepository(session).find(ProjectId(job.project_id), job.model)


def model_of(job: JobRow, adapter: ModelRow | None, registry: Registry) -> ModelOfJob:
    """Raises: ModelGone."""
    if job.model in registry:
        return ModelOfJob(job.model, registry[job.model], None)
    if adapter is None or adapter.base_model not in registry:
        raise ModelGone(job.model)
    return ModelOfJob(adapter.base_model, registry[adapter.base_model], adapter)
