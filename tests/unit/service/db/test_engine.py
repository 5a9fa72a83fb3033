"""The two kinds of transaction."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from schemas.ids import ProjectId
from service.db import engine
from service.db.engine import Database, is_outage
from service.db.jobs import JobRepository
from service.db.projects import ProjectRepository
from service.db.tables import JobMetadataRow, JobRow, ProjectRow
from tests.postgres import PostgresDatabases
from tests.unit.service.db.rows import NOW, add_job

WRITERS = 8
ROUNDS = 5


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    row = ProjectRow(id="p", name="p", created_at=NOW)
    with pytest.raises(IntegrityError), database.write() as session:
        session.add_all([row, JobMetadataRow(job_id="no job", key="k", value="v")])
    with database.read() as session:
        assert ProjectRepository(session).find(ProjectId("p")) is None


def test_rows_can_be_read_after_their_transaction(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    with database.read() as session:
        job = JobRepository(session).find(project_id, job_id)
    assert job is not None
    assert job.created_at == NOW


@pytest.mark.slow  # starts PostgreSQL
def test_a_connection_that_broke_while_it_was_idle_is_replaced_unseen(
    postgres: PostgresDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "IDLE_S", 0.0)
    url = postgres.new_url()
    database, other = Database(url), Database(url)
    with database.read() as session:
        process_id = session.scalar(text("SELECT pg_backend_pid()"))
    with other.write() as session:
        assert session.scalar(text("SELECT pg_terminate_backend(:id, 5000)"), {"id": process_id})
    with database.read() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != process_id
    database.close()
    other.close()


def test_writers_that_read_first_wait_for_each_other(database: Database, project_id: ProjectId) -> None:
    """On SQLite deferred transactions would end in "database is locked" here; on PostgreSQL the row's lock is asked."""
    job_id = add_job(database, project_id)

    def read_then_write() -> None:
        for _ in range(ROUNDS):
            with database.write() as session:
                job = session.get_one(JobRow, job_id, with_for_update=True)
                job.version = job.version + 1

    with ThreadPoolExecutor(WRITERS) as pool:
        for future in [pool.submit(read_then_write) for _ in range(WRITERS)]:
            future.result()
    with database.read() as session:
        assert session.get_one(JobRow, job_id).version == WRITERS * ROUNDS


def test_a_reader_does_not_wait_for_a_writer(database: Database, project_id: ProjectId) -> None:
    read_while_writing = threading.Event()
    with database.write() as session:
        session.add(ProjectRow(id="p2", name="p2", created_at=NOW))
        session.flush()

        def read() -> None:
            with database.read() as reading:
                assert reading.scalar(select(func.count()).select_from(ProjectRow)) == 1
            read_while_writing.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert read_while_writing.wait(timeout=30)
        reader.join()


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError):
        add_job(database, ProjectId("nobody"))


def test_an_unknown_status_is_refused(database: Database, project_id: ProjectId) -> None:
    with pytest.raises(IntegrityError, match="ck_jobs_status"):
        add_job(database, project_id, status="paused soon")


@pytest.mark.slow
def test_a_server_that_has_become_a_standby_is_an_outage(postgres: PostgresDatabases) -> None:
    database = Database(postgres.new_url())
    try:
        with database.write() as session:
            session.execute(text("SET TRANSACTION READ ONLY"))
            with pytest.raises(DBAPIError) as refused:
                session.execute(text("UPDATE projects SET name = name"))
            session.rollback()
        assert is_outage(refused.value)
        assert not is_outage(ValueError("a bug"))
    finally:
        database.close()
