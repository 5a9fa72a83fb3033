"""What every step of the dispatcher works with, and the shape in which a job fails."""

from dataclasses import dataclass

from service.backends.backend import Backend
from service.clock import Clock
from service.db.engine import Database
from service.registry import Registry
from service.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class DispatchContext:
    database: Database
    store: ObjectStore
    storage_url: str
    """For the validation's own process, which opens the store itself."""
    backend: Backend
    registry: Registry
    clock: Clock
    max_attempts: int


@dataclass(frozen=True, slots=True)
class JobFailure:
    code: str
    message: str
    param: str | None = None
