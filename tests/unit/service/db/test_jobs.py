"""Jobs: only who saw the truth may change one."""

from schemas.ids import JobId, ProjectId
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.tables import JobRow
from tests.unit.service.db.rows import add_job, claim_next


def test_a_status_changes_only_from_what_was_seen(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    with database.write() as session:
        jobs = JobRepository(session)
        assert jobs.advance(job_id, seen="queued", to="cancelled")
        assert not jobs.advance(job_id, seen="queued", to="running")
    with database.read() as session:
        assert session.get_one(JobRow, job_id).status == "cancelled"


def test_a_former_attempt_can_change_nothing(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    claim_next(database)
    with database.write() as session:
        jobs = JobRepository(session)
        assert jobs.next_attempt(job_id, seen_attempt=1)
        assert not jobs.next_attempt(job_id, seen_attempt=1)
        assert not jobs.update_running(job_id, attempt=1, changes={"trained_tokens": 1})
        assert jobs.update_running(job_id, attempt=2, changes={"trained_tokens": 2})
    with database.read() as session:
        assert session.get_one(JobRow, job_id).trained_tokens == 2


def test_a_cancelled_job_takes_no_more_results(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    claim_next(database)
    with database.write() as session:
        jobs = JobRepository(session)
        jobs.advance(job_id, seen="running", to="cancelled")
        assert not jobs.update_running(job_id, attempt=1, changes={"status": "succeeded"})


def test_jobs_are_filtered_by_metadata(database: Database, project_id: ProjectId) -> None:
    red = add_job(database, project_id, metadata={"c": "red", "n": "1"})
    blue = add_job(database, project_id, metadata={"c": "blue", "n": "1"})
    bare = add_job(database, project_id)

    def listed(metadata: dict[str, str], *, without_metadata: bool = False) -> list[JobId]:
        with database.read() as session:
            rows = JobRepository(session).list_after(
                project_id, after=None, limit=9, metadata=metadata, without_metadata=without_metadata
            )
        return [JobId(row.id) for row in rows]

    assert listed({}) == [bare, blue, red]
    assert listed({"n": "1"}) == [blue, red]
    assert listed({"n": "1", "c": "red"}) == [red]
    assert listed({}, without_metadata=True) == [bare]
