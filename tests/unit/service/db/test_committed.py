"""Facts are told once their transaction is committed, in order, and not at all when it is rolled back."""

from contextlib import suppress

from schemas.ids import ProjectId
from service.db.committed import tell_on_commit
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.leases import Lease
from service.db.queue import QueueRepository
from service.telemetry.facts import DeliveryAttempted, Fact, JobMoved
from tests.unit.service.db.rows import FIRST_DISPATCHER, NOW, add_job


def test_facts_are_told_after_the_commit(database: Database, told: list[Fact]) -> None:
    first, second = DeliveryAttempted("retried"), DeliveryAttempted("failed")
    with database.write() as session:
        tell_on_commit(session, first)
        tell_on_commit(session, second)
        assert told == []
    assert told == [first, second]
    with database.write():
        pass
    assert told == [first, second]


def test_what_is_rolled_back_was_never_told(database: Database, told: list[Fact]) -> None:
    with suppress(ZeroDivisionError), database.write() as session:
        tell_on_commit(session, DeliveryAttempted("failed"))
        raise ZeroDivisionError
    assert told == []


def test_each_change_of_a_jobs_status_is_a_fact_and_nothing_else_is(
    database: Database, project_id: ProjectId, told: list[Fact]
) -> None:
    job_id = add_job(database, project_id)
    with database.write() as session:
        jobs = JobRepository(session)
        assert len(QueueRepository(session).claim([job_id], Lease(FIRST_DISPATCHER, NOW), now=NOW)) == 1
        assert QueueRepository(session).claim([job_id], Lease(FIRST_DISPATCHER, NOW), now=NOW) == []
        assert jobs.update_running(job_id, attempt=1, changes={"estimated_finish_at": NOW})
        assert not jobs.update_running(job_id, attempt=7, changes={"status": "failed"})
        assert not jobs.advance(job_id, seen="queued", to="failed")
        assert jobs.update_running(job_id, attempt=1, changes={"status": "paused"})
        assert jobs.advance(job_id, seen="paused", to="cancelled", changes={"finished_at": NOW})
    moves = [(None, "queued"), ("queued", "running"), ("running", "paused"), ("paused", "cancelled")]
    assert told == [JobMoved(job_id, project_id, seen=seen, to=to) for seen, to in moves]  # type: ignore[arg-type]
