"""What waits and runs, by project, without a look at what has ended."""

from schemas.ids import ProjectId
from service.db.engine import Database
from service.db.queue_figures import ProjectFigures, count_running, count_waiting
from tests.unit.service.db.rows import add_job, add_project


def test_jobs_are_counted_by_project_and_status_with_the_oldest(database: Database, project_id: ProjectId) -> None:
    other = add_project(database)
    ended = ("paused", "succeeded", "failed", "cancelled")
    added = [add_job(database, project_id, status=status) for status in ("queued", "queued", "running", *ended)]
    validating = add_job(database, other, status="validating_files")
    with database.read() as session:
        waiting, running = count_waiting(session), count_running(session)
    assert sorted(waiting, key=lambda each: each.status) == [
        ProjectFigures(project_id, "queued", 2, added[0]),
        ProjectFigures(other, "validating_files", 1, validating),
    ]
    assert running == [ProjectFigures(project_id, "running", 1, None)]
