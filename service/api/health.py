"""`/livez`: the process answers. `/readyz`: what it needs is reachable too. Neither takes a key."""

from collections.abc import Mapping

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from service.api.dependencies import App, Parts, ReadinessCheck
from service.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/livez")
def livez() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/readyz")
def readyz(app: App) -> dict[str, str]:
    """Raises: Unavailable, naming each part that is not ready."""
    checks: Mapping[str, ReadinessCheck] = {
        "database": lambda: _check_database(app),
        "store": lambda: _check_store(app),
        **app.readiness,
    }
    troubles = {name: trouble for name, check in checks.items() if (trouble := check()) is not None}
    if troubles:
        raise Unavailable("Not ready: " + "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items()))
    return {"status": "ready", **dict.fromkeys(checks, "ok")}


def _check_database(app: Parts) -> str | None:
    try:
        app.database.check_reachable()
    except SQLAlchemyError as error:
        return f"not reachable ({type(error).__name__})"
    return None


def _check_store(app: Parts) -> str | None:
    try:
        app.store.check_writable()
    except OSError as error:
        return f"not writable ({error.strerror or type(error).__name__})"
    return None
