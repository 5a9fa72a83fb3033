"""Models as a project sees them: the registry's base models and its own `ft:` models."""

from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId
from schemas.models import AdapterReference, ModelDeleted, ModelObject
from schemas.pages import Page
from service.clock import Clock, unix_seconds
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.projects import ProjectRepository
from service.db.tables import ModelRow
from service.errors import Conflict, NotFound
from service.nearest import did_you_mean, shown
from service.registry import BaseModelEntry, Registry
from service.storage.discard import discard_folder
from service.storage.object_store import ObjectStore

COMPARED_NAMES = 100
UNKNOWN_CREATION = 0
"""The registry tells no date."""


class ModelNotFound(NotFound):
    code = "model_not_found"


class ModelInUse(Conflict):
    code = "model_in_use"


class BaseModelNotDeletable(Conflict):
    code = "base_model"


def list_models(
    project_id: ProjectId, *, database: Database, registry: Registry, store: ObjectStore
) -> Page[ModelObject]:
    with database.read() as session:
        tuned = ModelRepository(session).list_of_project(project_id)
    data = [present_tuned(row, store) for row in tuned] + [_present_base(*item) for item in registry.items()]
    return Page(object="list", data=data, has_more=False)


def find_model(
    project_id: ProjectId, name: str, *, database: Database, registry: Registry, store: ObjectStore
) -> ModelObject:
    if name in registry:
        return _present_base(name, registry[name])
    with database.read() as session:
        return present_tuned(_require_tuned(session, project_id, name, registry), store)


def delete_model(
    project_id: ProjectId, name: str, *, database: Database, registry: Registry, store: ObjectStore, clock: Clock
) -> ModelDeleted:
    """Remove the row, then the adapter's objects unless another name has them.

    Raises: ModelNotFound, ModelInUse, BaseModelNotDeletable.
    """
    if name in registry:
        raise BaseModelNotDeletable(f"{shown(name)} is a base model; only ft: models can be deleted")
    with database.write() as session:
        ProjectRepository(session).lock(project_id)  # of two names of one adapter, the second to go sees the first gone
        row = _require_tuned(session, project_id, name, registry)
        _check_unused(session, project_id, row)
        ModelRepository(session).delete(project_id, name)
        JobRepository(session).note_leftovers(JobId(row.job_id), now=clock())
        is_shared = ModelRepository(session).is_adapter_used(row.adapter_key)
    if not is_shared:
        discard_folder(store, row.adapter_key)
    return ModelDeleted(id=row.name, object="model", deleted=True)


def present_tuned(row: ModelRow, store: ObjectStore) -> ModelObject:
    adapter = AdapterReference(
        uri=store.uri(row.adapter_key),
        file_id=row.archive_file_id,
        sha256=row.adapter_sha256,
        bytes=row.adapter_bytes,
    )
    return ModelObject(
        id=row.name, object="model", created=unix_seconds(row.created_at), owned_by=row.project_id, adapter=adapter
    )


def _present_base(name: str, entry: BaseModelEntry) -> ModelObject:
    return ModelObject(id=name, object="model", created=UNKNOWN_CREATION, owned_by=entry.owned_by, adapter=None)


def _require_tuned(session: Session, project_id: ProjectId, name: str, registry: Registry) -> ModelRow:
    models = ModelRepository(session)
    row = models.find(project_id, name)
    if row is None:
        raise ModelNotFound(explain_unknown(session, project_id, name, registry))
    return row


def explain_unknown(session: Session, project_id: ProjectId, name: str, registry: Registry) -> str:
    """Compared with the newest names alone: each checkpoint has one, and they are all alike."""
    known = [*registry, *ModelRepository(session).list_newest_names(project_id, limit=COMPARED_NAMES)]
    return f"The model {shown(name)} does not exist; {did_you_mean(name, known, kind='models')}"


def _check_unused(session: Session, project_id: ProjectId, row: ModelRow) -> None:
    jobs = JobRepository(session)
    starting = jobs.find_unfinished_on_model(project_id, row.name)
    if starting is not None:
        raise ModelInUse(f"The job {starting.id} starts from {shown(row.name)}; wait for it, or cancel it first")
    maker = jobs.find_any(JobId(row.job_id))
    if maker is not None and maker.finished_at is None:
        # A lost run resumes from its checkpoints, adapters included.
        raise ModelInUse(f"{shown(row.name)} is a checkpoint of the job {maker.id}, which has not ended; wait for it")
