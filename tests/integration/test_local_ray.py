"""The local Ray dies in every way, and nothing of it stays."""

import signal
import threading
from pathlib import Path

import psutil
import pytest

from service.backends.backend import BackendUnavailable
from service.backends.local_ray import MARKER, RAY_GAVE_UP, LocalRay, LocalRayFailed
from service.backends.local_ray_backend import LocalRayBackend
from tests.integration.serving import wait_until


def ray_processes(work_dir: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _is_of(process, work_dir)]


def guardians(work_dir: Path) -> list[psutil.Process]:
    return [process for process in ray_processes(work_dir) if "ray_guardian" in " ".join(process.cmdline()[:2])]


def is_up(backend: LocalRayBackend) -> bool:
    try:
        return backend.capacity().cpus > 0
    except BackendUnavailable:
        return False


def test_a_ray_that_dies_comes_up_again_and_closing_leaves_nothing(tmp_path: Path) -> None:
    """Killed with its guardian, whose death leaves Ray's processes to be ended."""
    failures: list[LocalRayFailed] = []
    backend = LocalRayBackend(LocalRay(tmp_path), on_failure=failures.append)
    with pytest.raises(BackendUnavailable, match="is starting"):
        backend.capacity()
    backend.start()
    try:
        wait_until(lambda: is_up(backend))
        [first] = guardians(tmp_path)
        before, folder = set(ray_processes(tmp_path)), Path((tmp_path / "folder").read_text())
        assert len(before) > 1
        first.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_up(backend))
        wait_until(lambda: is_up(backend))
        assert before.isdisjoint(ray_processes(tmp_path))
        assert not folder.exists()
    finally:
        backend.close()
    assert failures == []
    assert ray_processes(tmp_path) == []
    assert threading.active_count() == 1 or not any(thread.name == "local-ray" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo no room; exit 3", "ended while it started, with exit code 3"), ("echo wait; sleep 60", "within 0.3 s")],
    ids=["ends", "hangs"],
)
def test_a_ray_that_does_not_come_up_is_told_with_its_last_lines(tmp_path: Path, script: str, said: str) -> None:
    ray = LocalRay(tmp_path, ray_command=("/bin/sh", "-c", script))
    with pytest.raises(LocalRayFailed, match=said) as failure:
        ray.start(timeout_s=0.3 if "sleep" in script else 30)
    assert script.split(";")[0].removeprefix("echo ") in str(failure.value)
    assert ray_processes(tmp_path) == []


@pytest.mark.timeout(60)
def test_closing_before_it_has_a_guardian_ends_the_start(tmp_path: Path) -> None:
    failures: list[LocalRayFailed] = []
    ray = LocalRay(tmp_path, ray_command=("/bin/sh", "-c", "exec sleep 600"))
    backend = LocalRayBackend(ray, on_failure=failures.append)
    backend.start()
    backend.close()
    assert failures == []
    assert ray_processes(tmp_path) == []


def test_a_ray_whose_processes_were_too_slow_for_it_is_started_again(tmp_path: Path) -> None:
    first = f'touch "{tmp_path}/tried"; echo {RAY_GAVE_UP}; exit 1'
    script = f'if test -e "{tmp_path}/tried"; then echo no room; exit 3; fi; {first}'
    with pytest.raises(LocalRayFailed, match=r"(?s)exit code 3.*no room"):
        LocalRay(tmp_path, ray_command=("/bin/sh", "-c", script)).start()


def _is_of(process: psutil.Process, work_dir: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER) == str(work_dir)
    except psutil.Error:
        return False
