"""A backend whose failures are counted: it did not answer, or not with what was asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from schemas.ids import RunId
from service.backends.backend import Backend, Capacity, RunRequest, RunStatus

OPERATIONS = ("submit", "status", "stop", "log", "capacity")


class ObservedBackend:
    """A `Backend`; `count_error` is told the operation, one of `OPERATIONS`."""

    def __init__(self, backend: Backend, count_error: Callable[[str], None]) -> None:
        self._backend = backend
        self._count_error = count_error

    def submit(self, request: RunRequest) -> None:
        with self._counting("submit"):
            self._backend.submit(request)

    def status(self, run_id: RunId) -> RunStatus:
        with self._counting("status"):
            return self._backend.status(run_id)

    def stop(self, run_id: RunId) -> None:
        with self._counting("stop"):
            self._backend.stop(run_id)

    def log_tail(self, run_id: RunId) -> str:
        with self._counting("log"):
            return self._backend.log_tail(run_id)

    def capacity(self) -> Capacity:
        with self._counting("capacity"):
            return self._backend.capacity()

    @contextmanager
    def _counting(self, operation: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, ValueError):  # BackendUnavailable, a disk's trouble, an answer that says nothing
            self._count_error(operation)
            raise
