"""The gauges of what waits: few by name, the rest as one, and none while the database is away."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.clock import utc_now
from service.db.engine import Database
from service.serve.queue_gauges import MAX_PROJECTS, QueueGauges
from tests.exposition import Exposition, exposed
from tests.sqlite import new_sqlite_url
from tests.unit.service.db.rows import add_job, add_project

HOUR_S = 3600.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(new_sqlite_url(tmp_path / "db.sqlite3"))
    yield database
    database.close()


def told_in_an_hour(database: Database) -> Exposition:
    registry = CollectorRegistry()
    registry.register(QueueGauges(database, lambda: utc_now() + timedelta(seconds=HOUR_S)))
    return exposed(registry)


def test_what_waits_is_told_by_project_with_its_age(database: Database) -> None:
    busy, idle = add_project(database), add_project(database)
    for status in ("queued", "queued", "running", "succeeded"):
        add_job(database, busy, status=status)
    told = told_in_an_hour(database)
    assert told.value("dpo_database_up") == 1
    assert told.value("dpo_queue_jobs", project=busy, status="queued") == 2
    assert told.value("dpo_queue_jobs", project=busy, status="running") == 1
    assert HOUR_S <= told.value("dpo_queue_oldest_seconds", project=busy, status="queued") < HOUR_S + 60
    assert idle not in told.text
    assert told.value("dpo_webhook_backlog") == 0


def test_many_projects_are_told_as_one(database: Database) -> None:
    large = add_project(database)
    for _ in range(2):
        add_job(database, large)
    for _ in range(MAX_PROJECTS + 4):
        add_job(database, add_project(database))
    told = told_in_an_hour(database)
    assert len(told.samples["dpo_queue_jobs"]) == MAX_PROJECTS + 1
    assert told.value("dpo_queue_jobs", project=large, status="queued") == 2
    assert told.value("dpo_queue_jobs", project="others", status="queued") == 5
    assert told.value("dpo_queue_oldest_seconds", project="others", status="queued") >= HOUR_S


def test_a_database_that_is_away_is_told_and_breaks_no_scrape(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite3'}")
    told = told_in_an_hour(database)
    assert told.samples == {"dpo_database_up": {(): 0.0}}
    database.close()
