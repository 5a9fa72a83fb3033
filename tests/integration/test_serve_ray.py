"""`serve` with a local Ray of its own: jobs of one and two workers, deaths of all kinds, and nothing left behind."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.integration.serving import (
    KEY,
    Serve,
    create_job,
    environments_of,
    files_that_hold,
    last_step,
    messages_of,
    newest_checkpoint,
    processes_of,
    serving,
    steps_of,
    suspended,
    wait_for_end,
    wait_for_step,
    wait_until,
)

LONG = 40
"""Epochs of 4 steps: long enough to be caught in the middle."""
STEPS = 4 * LONG


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, models_file: Path) -> Iterator[Serve]:
    with serving(tmp_path_factory.mktemp("serve") / "data", models_file) as running:
        yield running


def test_a_job_of_two_workers_loses_no_step_to_a_killed_worker_nor_to_a_pause(serve: Serve) -> None:
    client = serve.client()
    job = create_job(client, epochs=LONG, workers=2)
    wait_for_step(client, job, 6)
    workers = group_of(serve)
    assert len(workers) == 2
    workers[-1].kill()
    wait_until(lambda: len(group_of(serve)) == 2 and not set(workers) & set(group_of(serve)))
    stopped_after = pause_and_resume(serve, client, job)  # while they start
    check_ended(client, job, resumed_after=stopped_after)
    assert not any("was lost" in message for message in messages_of(client, job))


def group_of(serve: Serve) -> list[psutil.Process]:
    return processes_of(serve.data_dir, command="RayTrainWorker")


def pause_and_resume(serve: Serve, client: OpenAI, job: FineTuningJob) -> int:
    """Returns the step of the checkpoint it goes on from; a killed worker may have told of steps after that."""
    with suspended(processes_of(serve.data_dir, command=f"{job.id}-1")):
        assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    wait_until(lambda: not processes_of(serve.data_dir, command=f"{job.id}-1"))
    stopped_after = newest_checkpoint(serve.data_dir, f"{job.id}-1")
    wait_until(lambda: last_step(client, job) >= stopped_after)
    assert stopped_after < STEPS
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    return stopped_after


def check_ended(client: OpenAI, job: FineTuningJob, *, resumed_after: int) -> None:
    ended = wait_for_end(client, job)
    assert ended.status == "succeeded", ended.error
    assert steps_of(client, job) == list(range(1, STEPS + 1))
    assert f"Resumed after step {resumed_after} of {STEPS}" in messages_of(client, job)
    csv, archive = (client.files.content(file_id).read() for file_id in ended.result_files)
    assert csv.count(b"\n") == STEPS + 1
    assert archive[:2] == b"\x1f\x8b"
    assert ended.fine_tuned_model in {model.id for model in client.models.list()}


def test_a_cancelled_job_leaves_no_process_and_neither_rays_processes_nor_any_file_hold_a_secret(serve: Serve) -> None:
    client = serve.client()
    job = create_job(client, epochs=LONG)
    wait_for_step(client, job, 2)
    environments = environments_of(serve, command="ray")
    [token] = {environment["RAY_AUTH_TOKEN"] for environment in environments if "RAY_AUTH_TOKEN" in environment}
    assert environments
    assert not any(KEY in value for environment in environments for value in environment.values())
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    wait_until(lambda: not processes_of(serve.data_dir, command=f"{job.id}-1"))
    assert messages_of(client, job)[-1] == "The job has been cancelled"
    rays_own = Path((serve.data_dir / "ray" / "folder").read_text())
    for folder in (serve.data_dir, rays_own):
        assert files_that_hold(folder, [KEY, token]) == []
    assert KEY not in serve.output
    assert token not in serve.output


def test_a_job_that_was_paused_and_whose_service_was_killed_goes_on_at_its_next_start(
    serve: Serve, models_file: Path
) -> None:
    client = serve.client()
    job = create_job(client, epochs=LONG)
    wait_for_step(client, job, 6)
    stopped_after = pause_and_resume(serve, client, job)
    wait_for_step(client, job, stopped_after + 6)
    serve.stop(signal.SIGKILL)
    wait_until(lambda: not processes_of(serve.data_dir))
    with serving(serve.data_dir, models_file) as again:
        check_ended(again.client(), job, resumed_after=stopped_after)
        assert again.stop(signal.SIGINT) == 0
        assert "Traceback" not in again.output
        assert processes_of(serve.data_dir) == []
