"""What every step of the dispatcher works with, and the shape in which a job fails."""

from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.trace import NoOpTracer, Tracer

from schemas.ids import DispatcherId
from service.backends.backend import Backend
from service.clock import Clock
from service.db.engine import Database
from service.dispatcher.polls import RunPolls
from service.files.validation import FileReport
from service.registry import Registry
from service.storage.object_store import ObjectStore
from service.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class DispatchContext:
    database: Database
    store: ObjectStore
    validate_file: Callable[[str], FileReport]
    """Validates the preference file under an object key, outside this process. Raises as `validate_in_process` does."""
    backend: Backend
    registry: Registry
    clock: Clock
    max_attempts: int
    dispatcher_id: DispatcherId
    """Owner of this dispatcher's leases; no other living dispatcher has it."""
    lease_s: float
    """How long a dispatcher that gives no sign keeps its jobs."""
    metrics: Metrics = field(default_factory=Metrics)
    tracer: Tracer = field(default_factory=NoOpTracer)
    polls: RunPolls = field(default_factory=RunPolls)


@dataclass(frozen=True, slots=True)
class JobFailure:
    code: str
    message: str
    param: str | None = None
