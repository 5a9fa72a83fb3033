"""Models under requests at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from schemas.ids import JobId, ProjectId
from service.clock import utc_now
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.jobs.model_catalog import delete_model
from service.storage.folder import FolderStore
from tests.model_rows import add_model_row
from tests.postgres import PostgresDatabases, is_lock_awaited
from tests.unit.service.db.rows import NOW, add_job, add_project

ADAPTER = "runs/ftjob-1/ftjob-1-1/adapter"
NAMES = ("ft:m", "ft:m:ckpt-step-9")
POLL_S = 0.01


def add_ended_job(database: Database, project_id: ProjectId) -> JobId:
    job_id = add_job(database, project_id)
    with database.write() as session:
        assert JobRepository(session).advance(job_id, seen="queued", to="cancelled", changes={"finished_at": NOW})
    return job_id


@pytest.mark.slow  # PostgreSQL
def test_an_adapter_goes_whose_two_names_are_deleted_at_once(postgres: PostgresDatabases, tmp_path: Path) -> None:
    url, store = postgres.new_url(), FolderStore(tmp_path)
    store.write(f"{ADAPTER}/adapter_model.safetensors", [b"weights"])
    with closing(Database(url)) as database, closing(Database(url)) as observer, ThreadPoolExecutor(2) as pool:
        project_id = add_project(database)
        job_id = add_ended_job(database, project_id)
        for name in NAMES:
            add_model_row(database, project_id, job_id, name, adapter_key=ADAPTER)
        committing: list[Connection] = []

        @event.listens_for(database.engine, "commit")
        def wait_for_the_other(connection: Connection) -> None:
            """Until it is here, too, or waits for what is committed here."""
            committing.append(connection)
            while len(committing) < len(NAMES) and not is_lock_awaited(observer):
                time.sleep(POLL_S)

        deletes = [
            pool.submit(delete_model, project_id, name, database=database, registry={}, store=store, clock=utc_now)
            for name in NAMES
        ]
        assert all(each.result().deleted for each in deletes)
    assert store.list_keys("") == []
