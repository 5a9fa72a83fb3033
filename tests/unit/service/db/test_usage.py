"""What projects use, from the rows: runs cut at the span's ends, bytes counted once."""

from datetime import datetime, timedelta

import pytest

from schemas.ids import JobId, ProjectId
from service.db.cluster import NOTED_AGAIN, REMEMBERED, ClusterRepository
from service.db.engine import Database
from service.db.tables import RunRow
from service.db.usage import RunUse, UsageRepository
from service.dispatcher.requirements import Requirements
from tests.unit.service.db.rows import NOW, add_job, add_project, add_run

HOUR = timedelta(hours=1)
SINCE, UNTIL = NOW, NOW + 10 * HOUR


def add_past_run(
    database: Database, job_id: JobId, *, gpus: int, submitted_at: datetime | None, ended_at: datetime | None
) -> None:
    needed = Requirements(gpus, 1) if gpus else Requirements(1, 0)
    with database.write() as session:
        add_run(session, job_id, needed)
        run = session.get_one(RunRow, f"{job_id}-1")
        run.submitted_at, run.ended_at = submitted_at, ended_at


@pytest.mark.parametrize(
    ("submitted_after_h", "ended_after_h", "hours"),
    [
        (1, 3, 2),
        (-5, 3, 3),
        (8, 30, 2),
        (-5, 30, 10),
        (8, None, 2),
        (-5, None, 10),
        (-5, -1, 0),
        (11, 12, 0),
        (11, None, 0),
        (None, None, 0),
        (None, 3, 0),
        (0.25, 0.5 + 1 / 3_600_000, 0.25),
    ],
)
def test_a_run_counts_as_far_as_it_lies_in_the_span(
    database: Database,
    project_id: ProjectId,
    submitted_after_h: float | None,
    ended_after_h: float | None,
    hours: float,
) -> None:
    at = [None if after is None else NOW + after * HOUR for after in (submitted_after_h, ended_after_h)]
    add_past_run(database, add_job(database, project_id), gpus=4, submitted_at=at[0], ended_at=at[1])
    with database.read() as session:
        used = UsageRepository(session).measure_gpu_hours(project_id, since=SINCE, until=UNTIL)
    assert used == pytest.approx(4 * hours, abs=1e-5)


def test_runs_are_summed_up_by_project_and_model(database: Database, project_id: ProjectId) -> None:
    other = add_project(database)
    for owner, gpus, hours in ((project_id, 2, 1), (project_id, 0, 3), (other, 1, 5)):
        job_id = add_job(database, owner)
        add_past_run(database, job_id, gpus=gpus, submitted_at=NOW, ended_at=NOW + hours * HOUR)
    with database.read() as session:
        usage = UsageRepository(session)
        ours = usage.measure_runs(since=SINCE, until=UNTIL, project_id=project_id)
        everybodys = usage.measure_runs(since=SINCE, until=UNTIL)
    assert ours == [RunUse(project_id, "m", pytest.approx(4 * 3600, abs=0.01), pytest.approx(2 * 3600, abs=0.01))]
    assert {use.project_id: round(use.gpu_seconds) for use in everybodys} == {project_id: 7200, other: 18_000}


def test_what_the_cluster_had_is_remembered_for_a_while(database: Database) -> None:
    def note(gpus: int, cpus: int, at: datetime) -> tuple[int, int]:
        with database.write() as session:
            return ClusterRepository(session).note_capacity(gpus=gpus, cpus=cpus, now=at)

    assert note(8, 64, NOW) == (8, 64)
    assert note(4, 96, NOW + HOUR) == (8, 96)
    assert note(8, 32, NOW + HOUR + NOTED_AGAIN) == (8, 96)
    assert note(0, 32, NOW + REMEMBERED + HOUR) == (8, 96)
    assert note(0, 32, NOW + REMEMBERED + 3 * HOUR) == (0, 32)
