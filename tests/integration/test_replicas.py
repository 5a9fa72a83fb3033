"""Two APIs and two dispatchers over one PostgreSQL: what dies is missed by nobody, and what must not start does not."""

import random
import signal
import time
from pathlib import Path

import pytest

from service.db.engine import Database
from tests.integration.replicas import (
    DISPATCHING,
    asked,
    environment_of,
    new_key,
    replicated,
    retrieved,
    run_command,
)
from tests.integration.serving import KEY, create_job, messages_of, processes_of, steps_of, wait_for_step, wait_until
from tests.postgres import PostgresDatabases

EPOCHS = 10
STEPS = 4 * EPOCHS
KILLS = 6
LEASE_S = 3.0


@pytest.mark.parametrize("seed", [20_261_125])
def test_jobs_run_once_each_through_random_kills(
    tmp_path: Path, postgres: PostgresDatabases, models_file: Path, seed: int
) -> None:
    rng = random.Random(seed)
    url = postgres.new_url(is_migrated=False)
    with replicated(tmp_path, url, models_file, lease_s=LEASE_S) as replicas:
        keys = [KEY, new_key(url)]
        jobs = [(key, asked(replicas, key, lambda client: create_job(client, epochs=EPOCHS))) for key in keys]
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.5))
            replica = rng.choice(replicas.all)
            number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            code = replica.stop(number)
            assert code in (-number, 0), replica.output  # a process that has hardly begun dies of SIGTERM, too
            assert "Traceback" not in replica.output
            replica.start()
        for key, job in jobs:
            wait_until(lambda key=key, job=job: retrieved(replicas, key, job).finished_at is not None)
            ended = retrieved(replicas, key, job)
            assert ended.status == "succeeded", (seed, ended.error)
            assert asked(replicas, key, lambda client, job=job: steps_of(client, job)) == list(range(1, STEPS + 1))
            told = asked(replicas, key, lambda client, job=job: messages_of(client, job))
            assert len(set(told)) == len(told), told
            assert not any("was lost" in message for message in told), told
        wait_until(lambda: processes_of(tmp_path / "data", command="-m trainers") == [])


def test_a_dispatcher_told_to_stop_gives_its_jobs_back_at_once(
    tmp_path: Path, postgres: PostgresDatabases, models_file: Path
) -> None:
    """The lease would hold them for minutes."""
    url = postgres.new_url(is_migrated=False)
    with replicated(tmp_path, url, models_file, lease_s=600) as replicas:
        wait_until(lambda: all(DISPATCHING in dispatcher.output for dispatcher in replicas.dispatchers))
        with replicas.client() as client:
            job = create_job(client, epochs=EPOCHS)
            wait_for_step(client, job, 1)
            owner = owner_of(url, job.id)
            holder = next(each for each in replicas.dispatchers if owner is not None and owner in each.output)
            assert holder.stop(signal.SIGTERM) == 0
            assert "its runs go on, and other dispatchers with them" in holder.output
            wait_until(lambda: client.fine_tuning.jobs.retrieve(job.id).finished_at is not None)
            assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
            holder.start()


@pytest.mark.parametrize("command", ["api", "dispatcher"])
def test_a_database_that_was_not_migrated_is_refused(
    tmp_path: Path, postgres: PostgresDatabases, models_file: Path, command: str
) -> None:
    url = postgres.new_url(is_migrated=False)
    done = run_command(environment_of(tmp_path, url, models_file), command)
    assert done.returncode == 1
    assert "its schema is at revision none" in done.stderr
    assert "Run `dpo-service migrate`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_told_in_one_line(tmp_path: Path, models_file: Path) -> None:
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/dpo"
    done = run_command(environment_of(tmp_path, url, models_file), "migrate")
    assert done.returncode == 1
    assert "The database postgresql+psycopg://user:***@127.0.0.1:1/dpo cannot be brought" in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("api", "DPO_MODELS_FILE"),
        ("api", "DPO_WEBHOOK_KEY"),
        ("dispatcher", "DPO_MODELS_FILE"),
        ("dispatcher", "DPO_WEBHOOK_KEY"),
        ("dispatcher", "DPO_BACKEND"),
    ],
)
def test_what_replicas_must_share_is_asked_for(tmp_path: Path, models_file: Path, command: str, missing: str) -> None:
    environment = environment_of(tmp_path, "sqlite://", models_file)
    del environment[missing]
    done = run_command(environment, command)
    assert done.returncode == 1
    assert f"{'DPO_RAY_ADDRESS' if missing == 'DPO_BACKEND' else missing} is not set" in done.stderr


def owner_of(url: str, job_id: str) -> str | None:
    database = Database(url)
    with database.engine.connect() as connection:
        owner = connection.exec_driver_sql(f"SELECT lease_owner FROM jobs WHERE id = '{job_id}'").scalar()
    database.close()
    return owner
