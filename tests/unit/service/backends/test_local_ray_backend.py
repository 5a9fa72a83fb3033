"""The local Ray's supervisor. What it supervises is in tests/integration."""

import threading
from pathlib import Path

import pytest

from service.backends.backend import BackendUnavailable
from service.backends.local_ray import LocalRay, LocalRayFailed
from service.backends.local_ray_backend import LocalRayBackend
from service.backends.ray_jobs import RayJobsBackend


class BrokenRay(LocalRay):
    def __init__(self, error: Exception) -> None:
        super().__init__(Path("/nowhere"))
        self._error = error

    def start(self, *, timeout_s: float = 0, stopping: threading.Event | None = None) -> RayJobsBackend:
        raise self._error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalRayFailed("the local Ray did not come up"), "did not come up"),
        (OSError(28, "No space left on device"), "could not be kept up .*No space left"),
        (RuntimeError("can't start new thread"), "could not be kept up .*can't start new thread"),
    ],
    ids=["Ray", "disk", "unforeseen"],
)
def test_whatever_ends_the_supervisor_ends_the_service_with_the_reason(error: Exception, said: str) -> None:
    failures: list[LocalRayFailed] = []
    failed = threading.Event()

    def note(failure: LocalRayFailed) -> None:
        failures.append(failure)
        failed.set()

    backend = LocalRayBackend(BrokenRay(error), on_failure=note)
    backend.start()
    assert failed.wait(10)
    backend.close()

    with pytest.raises(LocalRayFailed, match=said):
        raise failures[0]
    with pytest.raises(BackendUnavailable):
        backend.capacity()
