"""Two APIs and two dispatchers over one PostgreSQL: who is told to stop is missed by nobody, and what must not start
does not. `test_cluster_kills` has those that nobody told."""

import signal
from pathlib import Path

import pytest

from service.db.engine import Database
from tests.integration.replicas import (
    DISPATCHING,
    environment_of,
    replicated,
    run_command,
)
from tests.integration.serving import create_job, wait_for_step, wait_until
from tests.postgres import PostgresDatabases

EPOCHS = 10


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


@pytest.mark.parametrize("command", ["api", "dispatcher"])
def test_what_replicas_must_share_is_asked_for_at_once(tmp_path: Path, models_file: Path, command: str) -> None:
    missing = ("DPO_DATABASE_URL", "DPO_STORAGE_URL", "DPO_MODELS_FILE", "DPO_WEBHOOK_KEY")
    environment = environment_of(tmp_path, "sqlite://", models_file)
    done = run_command(environment | dict.fromkeys(missing[1:], ""), command)
    assert done.returncode == 1
    assert done.stderr.startswith("dpo-service: Not set: DPO_STORAGE_URL (one object store")
    assert [name in done.stderr for name in missing] == [False, True, True, True]


def test_dispatchers_must_share_a_cluster(tmp_path: Path, models_file: Path) -> None:
    environment = environment_of(tmp_path, "sqlite://", models_file)
    del environment["DPO_BACKEND"]
    done = run_command(environment, "dispatcher")
    assert done.returncode == 1
    assert "DPO_RAY_ADDRESS is not set" in done.stderr


def owner_of(url: str, job_id: str) -> str | None:
    database = Database(url)
    with database.engine.connect() as connection:
        owner = connection.exec_driver_sql(f"SELECT lease_owner FROM jobs WHERE id = '{job_id}'").scalar()
    database.close()
    return owner
