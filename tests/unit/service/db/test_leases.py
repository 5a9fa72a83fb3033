"""Leases: one owner a job, who keeps it while he renews it and can be told from those who were before."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from schemas.ids import DispatcherId, JobId, ProjectId, RunId
from service.db.engine import Database
from service.db.leases import MAX_SKEW, LeaseRepository
from service.db.runs import RunRepository
from service.db.tables import JobRow, RunRow
from tests.unit.service.db.rows import NOW, add_job, add_run, claim_next

ONE, TWO = DispatcherId("dispatcher-1"), DispatcherId("dispatcher-2")


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def running(database: Database, project_id: ProjectId) -> JobId:
    """A job with an open run, leased by ONE until 30 s after NOW."""
    job_id = add_job(database, project_id)
    assert claim_next(database, owner=ONE) == job_id
    with database.write() as session:
        add_run(session, job_id)
    return job_id


def holds(database: Database, owner: DispatcherId, job_id: JobId) -> bool:
    with database.write() as session:
        return LeaseRepository(session, owner).hold(job_id)


def take_over(database: Database, owner: DispatcherId, now: datetime) -> int:
    with database.write() as session:
        return LeaseRepository(session, owner).take_over(now=now, until=now + timedelta(seconds=30), limit=9)


def test_a_lease_is_its_owners_alone(database: Database, running: JobId) -> None:
    assert holds(database, ONE, running)
    assert not holds(database, TWO, running)
    assert take_over(database, TWO, later(29)) == 0


def test_an_expired_lease_can_be_taken_over_and_its_former_owner_is_out(database: Database, running: JobId) -> None:
    assert take_over(database, TWO, later(31)) == 1
    assert holds(database, TWO, running)
    assert not holds(database, ONE, running)
    with database.read() as session:
        assert RunRepository(session).list_open(ONE) == []
        assert [each.run.job_id for each in RunRepository(session).list_open(TWO)] == [running]


def test_an_expired_lease_that_nobody_took_is_still_its_owners(database: Database, running: JobId) -> None:
    with database.write() as session:
        assert LeaseRepository(session, ONE).renew(until=later(100)) == 1
    assert take_over(database, TWO, later(99)) == 0


def test_a_lease_of_a_clock_that_was_set_back_is_not_waited_for(database: Database, running: JobId) -> None:
    with database.write() as session:
        LeaseRepository(session, ONE).renew(until=later(3600))
    assert take_over(database, TWO, later(3600 - 30) - MAX_SKEW) == 0
    assert take_over(database, TWO, NOW) == 1


def test_a_run_is_not_over_before_it_began(database: Database, running: JobId) -> None:
    with database.write() as session:
        [run] = [each.run for each in RunRepository(session).list_open(ONE)]
        RunRepository(session).mark_submitted([RunId(run.id)], now=later(-60))
        RunRepository(session).mark_ended(RunId(run.id), now=later(-90), reason="done")
    with database.read() as session:
        run = session.get_one(RunRow, run.id)
        assert (run.submitted_at, run.ended_at) == (NOW, NOW)


def test_a_lease_given_back_is_free_at_once(database: Database, running: JobId) -> None:
    with database.write() as session:
        assert LeaseRepository(session, TWO).release_all() == 0
        assert LeaseRepository(session, ONE).release_all() == 1
    assert take_over(database, TWO, NOW) == 1


def test_only_the_owner_can_release(database: Database, running: JobId) -> None:
    with database.write() as session:
        LeaseRepository(session, TWO).release(running)
    assert holds(database, ONE, running)


def test_a_job_whose_runs_have_ended_is_no_orphan(database: Database, running: JobId) -> None:
    with database.write() as session:
        [run] = [each.run for each in RunRepository(session).list_open(ONE)]
        RunRepository(session).mark_ended(running_id := run.id, now=NOW, reason="done")  # type: ignore[arg-type]
    assert running_id == f"{running}-1"
    with database.read() as session:
        assert not LeaseRepository(session, TWO).is_any_orphan(now=later(31), until=later(61))


def test_jobs_to_validate_are_shared_out_and_no_version_rises(database: Database, project_id: ProjectId) -> None:
    jobs = [add_job(database, project_id, status="validating_files") for _ in range(6)]

    def take(owner: DispatcherId) -> int:
        with database.write() as session:
            return LeaseRepository(session, owner).take_new(now=NOW, until=later(30), limit=3)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(take, (ONE, TWO))) == 6
    with database.read() as session:
        owners = [session.get_one(JobRow, job_id).lease_owner for job_id in jobs]
        assert (owners.count(ONE), owners.count(TWO)) == (3, 3)
        assert {session.get_one(JobRow, job_id).version for job_id in jobs} == {0}
        assert not LeaseRepository(session, ONE).is_any_new(now=NOW, until=later(30))
        assert LeaseRepository(session, ONE).is_any_new(now=later(31), until=later(61))
