"""Jobs stopped for others, beside dispatchers that are at work on them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId
from service.backends.backend import Capacity
from service.db.engine import Database
from service.db.leases import LeaseRepository
from service.db.tables import JobRow
from service.dispatcher.preempt import preempt_for
from service.dispatcher.requirements import Requirements
from tests.postgres import PostgresDatabases, wait_until_held_up
from tests.unit.service.db.rows import FIRST_DISPATCHER, NOW, add_job, add_project, add_run, claim_next

ON_A_GPU = Requirements(1, 1)


@pytest.fixture
def database(postgres: PostgresDatabases) -> Iterator[Database]:
    """PostgreSQL, which runs writers beside each other."""
    with closing(Database(postgres.new_url())) as opened:
        yield opened


def start_job(database: Database, project_id: ProjectId) -> JobId:
    job_id = add_job(database, project_id, gpus=1)
    assert claim_next(database) == job_id
    with database.write() as session:
        add_run(session, job_id, ON_A_GPU)
    return job_id


@pytest.mark.slow  # PostgreSQL
def test_a_claim_that_preempts_in_two_projects_waits_for_no_renewal_that_waits_for_it(database: Database) -> None:
    one, other = (add_project(database, max_running_jobs=1) for _ in range(2))
    first, second = start_job(database, one), start_job(database, other)
    urgent = {project_id: add_job(database, project_id, priority=1, gpus=1) for project_id in (one, other)}

    def preempt(session: Session, project_id: ProjectId) -> bool:
        job = session.get_one(JobRow, urgent[project_id])
        return preempt_for(session, job, ON_A_GPU, Capacity(cpus=2, gpus=9), now=NOW)

    def renew() -> int:
        with database.write() as session:
            return LeaseRepository(session, FIRST_DISPATCHER).renew(until=NOW + timedelta(minutes=1))

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            assert preempt(session, other)
            renewal = pool.submit(renew)
            wait_until_held_up(database, renewal)
            assert not preempt(session, one)
        assert renewal.result() == 2
    with database.write() as session:
        assert preempt(session, one)
    with database.read() as session:
        assert [session.get_one(JobRow, job_id).status for job_id in (first, second)] == ["queued", "queued"]
