"""All of production, and all of it killed: APIs, dispatchers and drivers over PostgreSQL, S3 and a Ray with a token."""

import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.buckets import Bucket
from tests.integration.local_ray import running_ray
from tests.integration.replicas import Replicas, asked, new_key, replicated, retrieved
from tests.integration.serving import KEY, create_job, messages_of, steps_of
from tests.postgres import PostgresDatabases

JOBS = 10
EPOCHS = 3
STEPS = 4 * EPOCHS
LEASE_S = 3.0
DRIVER_KILLS = 2
"""Below a job's three attempts, should all of them hit the same one."""
PAUSE_S = (10.0, 30.0)
"""Long enough for those that start again to leave the trainers some of two cores."""
SUCCEEDED = "The job has successfully completed"


@pytest.mark.timeout(1_200)  # a minute a job, and every process starts again and again
@pytest.mark.parametrize("seed", [20_261_127])
def test_ten_jobs_of_three_projects_succeed_once_each(
    tmp_path: Path,
    postgres: PostgresDatabases,
    bucket: Bucket,
    models_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    # As in a cluster's image: `python` is one that has the package.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    rng = random.Random(seed)
    url = postgres.new_url(is_migrated=False)
    with running_ray(tmp_path / "ray") as ray:
        settings = {
            "DPO_STORAGE_URL": bucket.url,
            "DPO_BACKEND": "ray",
            "DPO_RAY_ADDRESS": ray.address,
            "DPO_RAY_TOKEN": ray.token,
        }
        with replicated(tmp_path, url, models_file, lease_s=LEASE_S, settings=settings) as replicas:
            keys = [KEY, new_key(url, name="second"), new_key(url, name="third")]
            jobs = [(key, submit(replicas, key)) for key in (keys * JOBS)[:JOBS]]
            kill_until_ended(replicas, jobs, rng)
            for key, job in jobs:
                check_succeeded_once(replicas, key, job, bucket)


def submit(replicas: Replicas, key: str) -> FineTuningJob:
    return asked(replicas, key, lambda client: create_job(client, epochs=EPOCHS))


def kill_until_ended(replicas: Replicas, jobs: list[tuple[str, FineTuningJob]], rng: random.Random) -> None:
    driver_kills = 0
    waiting = list(jobs)
    deadline = time.monotonic() + 120 * len(jobs)
    while waiting:
        assert time.monotonic() < deadline, waiting
        time.sleep(rng.uniform(*PAUSE_S))
        replica = rng.choice(replicas.all)
        number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        assert replica.stop(number) in (-number, 0), replica.output
        assert "Traceback" not in replica.output
        replica.start()
        if driver_kills < DRIVER_KILLS and rng.random() < 0.3:
            driver_kills += kill_a_driver(waiting)
        waiting = [(key, job) for key, job in waiting if retrieved(replicas, key, job).finished_at is None]


def kill_a_driver(jobs: list[tuple[str, FineTuningJob]]) -> bool:
    for _, job in jobs:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = process.cmdline()
                if "-m" in command and "trainers" in command and any(job.id in part for part in command):
                    process.kill()
                    return True
    return False


def check_succeeded_once(replicas: Replicas, key: str, job: FineTuningJob, bucket: Bucket) -> None:
    def check(client: OpenAI) -> None:
        ended = client.fine_tuning.jobs.retrieve(job.id)
        assert ended.status == "succeeded", ended.error
        assert steps_of(client, job) == list(range(1, STEPS + 1))
        told = messages_of(client, job)
        assert len(set(told)) == len(told), told
        assert told.count(SUCCEEDED) == 1
        assert len(ended.result_files) == len(set(ended.result_files)) == 2
        assert [model.id for model in client.models.list()].count(str(ended.fine_tuned_model)) == 1
        metrics, archive = (client.files.content(file_id).read() for file_id in ended.result_files)
        assert len(metrics.splitlines()) == STEPS + 1
        assert archive.startswith(b"\x1f\x8b")

    asked(replicas, key, check)
    runs = {name.split("/")[-2] for name in bucket.object_keys() if job.id in name and name.endswith("/outcome.json")}
    assert len(runs) == 1, runs
