"""A cluster's failures are counted by operation and go on to the dispatcher."""

from collections.abc import Callable

import pytest

from schemas.ids import RunId
from service.backends.backend import Backend, BackendUnavailable, Capacity, RunRequest
from service.backends.observed import OPERATIONS, ObservedBackend
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend

RUN = RunId("ftjob-1-1")
CALLS: dict[str, Callable[[Backend], object]] = {
    "submit": lambda backend: backend.submit(RunRequest(RUN, "/runs/1", 1, 0)),
    "status": lambda backend: backend.status(RUN),
    "stop": lambda backend: backend.stop(RUN),
    "log": lambda backend: backend.log_tail(RUN),
    "capacity": lambda backend: backend.capacity(),
}


class BrokenBackend:
    def __getattr__(self, name: str) -> object:
        def fail(*_: object) -> object:
            raise BackendUnavailable(name)

        return fail


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_failure_is_counted_under_its_operation(operation: str) -> None:
    counted: list[str] = []
    with pytest.raises(BackendUnavailable):
        CALLS[operation](ObservedBackend(BrokenBackend(), counted.append))  # type: ignore[arg-type]
    assert counted == [operation]


def test_answers_are_passed_on_and_not_counted() -> None:
    counted: list[str] = []
    scripted = ScriptedBackend(lambda _: [])
    backend = ObservedBackend(scripted, counted.append)
    for call in CALLS.values():
        call(backend)
    assert backend.capacity() == Capacity(cpus=2, gpus=0)
    assert scripted.stopped == [RUN]
    assert counted == []
