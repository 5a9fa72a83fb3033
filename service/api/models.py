"""`/v1/models`."""

from functools import partial

from fastapi import APIRouter

from schemas.models import ModelDeleted, ModelObject
from schemas.pages import Page
from service.api.auth import Project
from service.api.dependencies import App
from service.api.openapi import CONFLICT
from service.jobs import model_catalog

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
def list_models(project: Project, app: App) -> Page[ModelObject]:
    """List the project's `ft:` models, newest first, then the registry's base models."""
    return model_catalog.list_models(project, database=app.database, registry=app.registry, store=app.store)


@router.get("/{model:path}")
def get_model(model: str, project: Project, app: App) -> ModelObject:
    """An `ft:` model's `adapter` says where its unpacked adapter lies."""
    return model_catalog.find_model(project, model, database=app.database, registry=app.registry, store=app.store)


@router.delete("/{model:path}", responses=CONFLICT)
async def delete_model(model: str, project: Project, app: App) -> ModelDeleted:
    """Delete an `ft:` model and its adapter; no unfinished job may need it."""
    return await app.delete_lane.run(
        partial(
            model_catalog.delete_model,
            project,
            model,
            database=app.database,
            registry=app.registry,
            store=app.store,
            clock=app.clock,
        )
    )
