"""One suite that every backend passes: what the dispatcher relies on.

The trainer is a shell script in the run folder, so that each test says what its run does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from schemas.ids import RunId
from service.backends.backend import Backend, BackendUnavailable, RunRequest, RunState, RunStatus
from service.backends.local_ray import LocalRay
from service.backends.process import ProcessBackend
from service.backends.ray_http import RayError, RayHttp
from service.backends.ray_jobs import DriverCommand, RayJobsBackend
from tests.integration.serving import wait_until


@dataclass(frozen=True, slots=True)
class Bench:
    backend: Backend
    folder: Path

    def submit(self, script: str) -> RunRequest:
        run_id = RunId(f"ftjob-{uuid4().hex}-1")
        folder = self.folder / run_id
        folder.mkdir()
        (folder / "script").write_text(script)
        request = RunRequest(run_id, str(folder), workers=1, gpus_per_worker=0)
        self.backend.submit(request)
        return request

    def wait_for(self, request: RunRequest, *states: RunState) -> RunStatus:
        wait_until(lambda: self.backend.status(request.run_id).state in states)
        return self.backend.status(request.run_id)


@pytest.fixture(params=["process", "ray"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "process":
        backend = ProcessBackend(
            tmp_path / "work", command=lambda run: ["/bin/sh", f"{run.run_folder_uri}/script"], stop_grace_s=0.3
        )
        yield Bench(backend, tmp_path)
        backend.close()
        return
    ray: LocalRay = request.getfixturevalue("local_ray")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n. "$DPO_RUN_FOLDER_URI/script"\n')
    python.chmod(0o755)
    yield Bench(RayJobsBackend(ray.http, DriverCommand(str(python), None, stop_grace_s=3)), tmp_path)


def test_a_run_ends_with_the_exit_code_of_its_trainer(bench: Bench) -> None:
    well, badly, killed = bench.submit("exit 0"), bench.submit("exit 7"), bench.submit("kill -9 $$")
    assert bench.wait_for(well, RunState.ENDED).detail == "exit code 0"
    assert bench.wait_for(badly, RunState.ENDED).detail == "exit code 7"
    assert bench.wait_for(killed, RunState.ENDED).detail in ("exit code 137", "exit code -9")


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_cluster_with_a_token_takes_no_run_without_it(local_ray: LocalRay, tmp_path: Path, token: str | None) -> None:
    stranger = RayJobsBackend(RayHttp(local_ray.address, token=token))
    request = RunRequest(RunId(f"ftjob-{uuid4().hex}-1"), str(tmp_path), workers=1, gpus_per_worker=0)
    for ask in (
        lambda: stranger.submit(request),
        stranger.capacity,
        lambda: stranger.status(request.run_id),
        lambda: stranger.stop(request.run_id),
    ):
        with pytest.raises(BackendUnavailable, match=r"HTTP 40[13]") as refused:
            ask()
        assert isinstance(refused.value.__cause__, RayError)
        assert refused.value.__cause__.is_locked_out
    assert RayJobsBackend(local_ray.http).status(request.run_id).state is RunState.UNKNOWN


def test_submitting_again_starts_nothing_again(bench: Bench) -> None:
    request = bench.submit('echo started >> "$DPO_STARTS"; sleep 0.2'.replace("$DPO_STARTS", str(bench.folder / "n")))
    bench.backend.submit(request)
    bench.wait_for(request, RunState.ENDED)
    bench.backend.submit(request)
    bench.wait_for(request, RunState.ENDED)
    assert (bench.folder / "n").read_text() == "started\n"


def test_an_unknown_run_is_unknown_and_stopping_it_is_fine(bench: Bench) -> None:
    bench.backend.stop(RunId("ftjob-none-1"))
    assert bench.backend.status(RunId("ftjob-none-1")).state is RunState.UNKNOWN
    assert bench.backend.log_tail(RunId("ftjob-none-1")) == ""


def test_a_stopped_run_ends_with_all_its_processes(bench: Bench) -> None:
    request = bench.submit(f"sleep 1000 & echo $! > {bench.folder}/child; wait")
    wait_until(lambda: (bench.folder / "child").exists() and (bench.folder / "child").read_text() != "")
    child = int((bench.folder / "child").read_text())
    assert Path(f"/proc/{child}").exists()
    bench.backend.stop(request.run_id)
    bench.wait_for(request, RunState.ENDED)
    wait_until(lambda: not _is_running(child))


def test_a_run_that_ignores_sigterm_is_ended_all_the_same(bench: Bench) -> None:
    request = bench.submit(f"trap '' TERM; touch {bench.folder}/up; while :; do sleep 0.1; done")
    wait_until((bench.folder / "up").exists)
    wait_until(
        lambda: bench.backend.stop(request.run_id) or bench.backend.status(request.run_id).state is RunState.ENDED
    )


def test_stopping_an_ended_run_is_fine(bench: Bench) -> None:
    request = bench.submit("exit 3")
    bench.wait_for(request, RunState.ENDED)
    bench.backend.stop(request.run_id)
    assert bench.backend.status(request.run_id).detail == "exit code 3"


def test_the_log_tail_has_the_last_lines(bench: Bench) -> None:
    request = bench.submit("for n in $(seq 100); do echo line $n; done; echo oh no >&2; exit 1")
    bench.wait_for(request, RunState.ENDED)
    lines = bench.backend.log_tail(request.run_id).splitlines()
    assert "line 100" in lines
    assert "oh no" in lines
    assert len(lines) <= 20


def test_the_capacity_is_this_machines(bench: Bench) -> None:
    capacity = bench.backend.capacity()
    assert capacity.cpus >= 1
    assert capacity.gpus >= 0


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
