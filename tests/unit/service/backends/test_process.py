"""What plain processes promise beyond the common suite: a later service finds the runs of one that was killed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.ids import RunId
from service.backends.backend import RunRequest, RunState
from service.backends.process import ProcessBackend
from service.backends.run_lock import hold_lock, is_locked
from service.backends.trainer_command import local_command

RUN = RunId("ftjob-1-1")


def backend_of(folder: Path) -> ProcessBackend:
    return ProcessBackend(folder, command=lambda request: ["/bin/sh", "-c", request.run_folder_uri], stop_grace_s=0.2)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[ProcessBackend]:
    backend = backend_of(tmp_path)
    yield backend
    backend.close()


def script(text: str) -> RunRequest:
    return RunRequest(RUN, text, workers=1, gpus_per_worker=0)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def test_a_later_backend_adopts_the_runs_and_can_end_them(backend: ProcessBackend, tmp_path: Path) -> None:
    backend.submit(script("exec sleep 1000"))
    later = backend_of(tmp_path)
    assert later.status(RUN).state is RunState.RUNNING
    later.submit(script("echo twice > /dev/stderr"))
    later.close()
    assert later.status(RUN).state is RunState.ENDED
    assert "twice" not in later.log_tail(RUN)


def test_an_adopted_run_tells_its_exit_code(backend: ProcessBackend, tmp_path: Path) -> None:
    backend.submit(script("sleep 0.1; exit 9"))
    later = backend_of(tmp_path)
    wait_until(lambda: later.status(RUN).state is RunState.ENDED)
    assert later.status(RUN).detail == "exit code 9"


def test_a_run_whose_shell_was_killed_too_is_ended_without_a_code(backend: ProcessBackend, tmp_path: Path) -> None:
    backend.submit(script(f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"))
    wait_until((tmp_path / "up").exists)
    wait_until(lambda: backend.stop(RUN) or backend.status(RUN).state is RunState.ENDED)
    assert backend.status(RUN).detail == "killed, no exit code is known"


def test_a_stopped_trainer_may_say_how_it_took_it(backend: ProcessBackend, tmp_path: Path) -> None:
    backend.submit(script(f"trap 'exit 143' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"))
    wait_until((tmp_path / "up").exists)
    backend.stop(RUN)
    wait_until(lambda: backend.status(RUN).state is RunState.ENDED)
    assert backend.status(RUN).detail == "exit code 143"


def test_several_workers_are_started_by_torchrun() -> None:
    command = local_command("/runs/1", workers=3)
    assert "--nproc-per-node=3" in command
    assert command[-2:] == ["trainers", "/runs/1"]


def test_a_lock_can_be_held_once_and_is_free_afterwards(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "lock") as first, hold_lock(tmp_path / "lock") as second:
        assert first is not None
        assert second is None
        assert is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "never made")
