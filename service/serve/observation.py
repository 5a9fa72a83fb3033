"""One process's metrics and traces, and its parts made so that they tell of themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.trace import Tracer, TracerProvider

from service.backends.backend import Backend
from service.backends.observed import OPERATIONS as CLUSTER_OPERATIONS
from service.backends.observed import ObservedBackend
from service.jobs.lifecycle import ALLOWED
from service.serve.start_errors import StartError
from service.storage.object_store import ObjectStore
from service.storage.observed import OPERATIONS as STORE_OPERATIONS
from service.storage.observed import ObservedStore
from service.telemetry.metrics import Metrics, start_at_zero
from service.telemetry.observing import Observer
from service.telemetry.tracing import TracingUnusable, open_tracer_provider


@dataclass(frozen=True, slots=True)
class Observation:
    tracer_provider: TracerProvider
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def tracer(self) -> Tracer:
        return self.tracer_provider.get_tracer("dpo-service")

    def observer(self) -> Observer:
        """For the database to tell."""
        return Observer(self.metrics, transitions=ALLOWED, tracer=self.tracer)

    def store(self, store: ObjectStore) -> ObservedStore:
        errors = self.metrics.store_errors
        start_at_zero(errors, [{"operation": operation} for operation in STORE_OPERATIONS])
        return ObservedStore(store, lambda operation: errors.labels(operation).inc())

    def backend(self, backend: Backend) -> ObservedBackend:
        errors = self.metrics.cluster_errors
        start_at_zero(errors, [{"operation": operation} for operation in CLUSTER_OPERATIONS])
        return ObservedBackend(backend, lambda operation: errors.labels(operation).inc())


@contextmanager
def observing() -> Iterator[Observation]:
    """Raises: StartError."""
    try:
        with open_tracer_provider() as provider:
            yield Observation(provider)
    except TracingUnusable as error:
        raise StartError(str(error)) from error
