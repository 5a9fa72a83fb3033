"""`/livez`: the process answers. `/readyz`: what it needs is reachable too. Neither takes a key.

Some load balancers ask by HEAD.
"""

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from service.api.dependencies import App
from service.db.engine import Database
from service.errors import Unavailable
from service.storage.object_store import ObjectStore

router = APIRouter(tags=["health"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readyz(app: App) -> dict[str, str]:
    """Raises: Unavailable, naming each part that is not ready."""
    troubles = await app.readiness.troubles()
    if troubles:
        raise Unavailable(f"Not ready: {'; '.join(troubles)}")
    return {"status": "ready", **dict.fromkeys(app.readiness.checks, "ok")}


def check_database(database: Database) -> str | None:
    try:
        database.check_reachable()
    except SQLAlchemyError as error:
        return f"not reachable ({type(error).__name__})"
    return None


def check_store(store: ObjectStore) -> str | None:
    try:
        store.check_writable()
    except OSError as error:
        return f"not writable ({error.strerror or type(error).__name__})"
    return None
