"""The migrations make the tables that the code speaks of, and take them away again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.exc import IntegrityError

from service.db import migrate
from service.db.engine import SESSION_SETTINGS, Database
from service.db.idempotency import ORGANIZATION, IdempotencyRepository
from service.db.jobs import JobRepository
from service.db.locks import Lock, take_lock
from service.db.runs import RunRepository
from service.db.tables import IdempotencyRow, JobRow, Table
from tests.postgres import PostgresDatabases
from tests.unit.service.db.rows import NOW, add_job, add_project, add_run

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'dpo.sqlite3'}"
    postgres: PostgresDatabases = request.getfixturevalue("postgres")
    return postgres.new_url(is_migrated=False)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = create_engine(url)
    yield opened
    opened.dispose()


def downgrade(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_migrated_tables_equal_the_declared_ones(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        opts = {"compare_type": True, "include_object": _can_be_compared}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, Table.metadata) == []


def _can_be_compared(_: object, name: str | None, *_more: object) -> bool:
    """SQLite does not tell that an index falls, PostgreSQL does; of the others it tells columns and condition alike."""
    return name not in {"ix_jobs_queued", "ix_jobs_queued_on_cpus"}


def test_constraints_have_their_names(engine: Engine) -> None:
    migrate.upgrade(engine)
    found = inspect(engine)
    assert found.get_pk_constraint("jobs")["name"] == "pk_jobs"
    assert [each["name"] for each in found.get_check_constraints("jobs")] == ["ck_jobs_status"]
    assert {each["name"] for each in found.get_unique_constraints("run_events")} == {
        "uq_run_events_job_id_key",
        "uq_run_events_job_id_seq",
    }


def test_migrating_twice_changes_nothing(engine: Engine) -> None:
    migrate.upgrade(engine)
    before = inspect(engine).get_table_names()
    migrate.upgrade(engine)
    assert inspect(engine).get_table_names() == before


@pytest.mark.slow  # PostgreSQL
@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_process_waits_for_anothers_migration_for_longer_than_a_request_would(
    postgres: PostgresDatabases, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SESSION_SETTINGS, limit, "50ms")
    with closing(Database(postgres.new_url())) as database, ThreadPoolExecutor(1) as pool:
        with database.engine.begin() as other:
            take_lock(other, Lock.MIGRATION)
            migrating = pool.submit(migrate.upgrade, database.engine)
            with pytest.raises(TimeoutError):
                migrating.result(timeout=0.5)
        migrating.result()


def test_every_migration_can_be_taken_back(engine: Engine) -> None:
    migrate.upgrade(engine)
    downgrade(engine, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]


def test_jobs_with_runs_survive_the_way_to_paused_and_back(url: str, engine: Engine) -> None:
    database = Database(url)
    migrate.upgrade(database.engine)
    project_id = add_project(database)
    job_id = add_job(database, project_id, metadata={"kept": "yes"})
    with database.write() as session:
        add_run(session, job_id)
    downgrade(engine, "0001")
    migrate.upgrade(database.engine)
    with database.write() as session:
        assert JobRepository(session).advance(job_id, seen="queued", to="paused", changes={"training_pairs": 4})
        assert [run.attempt for run in RunRepository(session).list_of_job(job_id)] == [1]
    downgrade(engine, "0001")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT status FROM jobs").scalars().all() == ["queued"]
        assert connection.exec_driver_sql("SELECT value FROM job_metadata").scalars().all() == ["yes"]
        assert connection.exec_driver_sql("SELECT id FROM runs").scalars().all() == [f"{job_id}-1"]
    with pytest.raises(IntegrityError, match="ck_jobs_status"), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET status = 'paused'")
    database.close()


def test_first_answers_of_projects_survive_the_way_back_and_up_again(url: str, engine: Engine) -> None:
    database = Database(url)
    migrate.upgrade(database.engine)
    project_id = add_project(database)
    with database.write() as session:
        for owner in (project_id, ORGANIZATION):
            answer = IdempotencyRow(
                owner=owner, key="k", request_sha256="0" * 64, response_body={"id": owner}, created_at=NOW
            )
            IdempotencyRepository(session).add(answer)
    downgrade(engine, "0011")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT project_id FROM idempotency_keys").scalars().all() == [project_id]
        [of_projects] = inspect(connection).get_foreign_keys("idempotency_keys")
        assert of_projects["name"] == "fk_idempotency_keys_project_id_projects"
    migrate.upgrade(database.engine)
    with database.read() as session:
        kept = IdempotencyRepository(session).find(project_id, "k")
        assert kept is not None
        assert (kept.response_body, kept.created_at) == ({"id": project_id}, NOW)
    database.close()


def test_jobs_that_the_former_version_ended_may_have_left_something(url: str, engine: Engine) -> None:
    database = Database(url)
    migrate.upgrade(database.engine)
    project_id = add_project(database)
    ended, going_on = add_job(database, project_id), add_job(database, project_id)
    end = "UPDATE jobs SET status = 'succeeded', finished_at = created_at WHERE id = '{}'"
    downgrade(engine, "0012")
    with engine.begin() as connection:
        connection.exec_driver_sql(end.format(ended))
    migrate.upgrade(database.engine)
    new = add_job(database, project_id)
    assert list_with_leftovers(database) == [ended]
    with engine.begin() as connection:  # by a process of the former version, which knows nothing of the column
        connection.exec_driver_sql(end.format(going_on))
    assert sorted(list_with_leftovers(database)) == [ended, going_on]
    with database.read() as session:
        assert session.get_one(JobRow, new).leftovers_since is None
    database.close()


def list_with_leftovers(database: Database) -> list[str]:
    with database.read() as session:
        jobs = JobRepository(session).list_with_leftovers(before=NOW, failed_before=NOW, limit=10)
    return [job.id for job in jobs]
