"""Events: no gap, no repeat, whoever writes at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from schemas.ids import JobId, ProjectId
from service.db.engine import Database
from service.db.events import EventRepository, NewEvent
from service.db.tables import JobRow, RunEventRow
from tests.unit.service.db.rows import NOW, add_job


def step_event(step: int, message: str = "a step") -> NewEvent:
    return NewEvent(f"step:{step}", NOW, "info", message, {"step": step}, type="metrics")


def append(database: Database, job_id: JobId, events: list[NewEvent]) -> None:
    with database.write() as session:
        EventRepository(session).append(job_id, events)


def stored(database: Database, job_id: JobId) -> list[tuple[int, str]]:
    with database.read() as session:
        rows = session.scalars(select(RunEventRow).where(RunEventRow.job_id == job_id).order_by(RunEventRow.seq))
        return [(row.seq, row.key) for row in rows]


def test_events_are_numbered_in_their_order(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    append(database, job_id, [step_event(1), step_event(2)])
    append(database, job_id, [step_event(3)])
    assert stored(database, job_id) == [(1, "step:1"), (2, "step:2"), (3, "step:3")]


def test_the_first_event_of_a_key_is_kept(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    append(database, job_id, [step_event(1, "first"), step_event(1, "second")])
    append(database, job_id, [step_event(1, "third"), step_event(2)])
    assert stored(database, job_id) == [(1, "step:1"), (2, "step:2")]
    with database.read() as session:
        newest_first = EventRepository(session).list_after(job_id, after=None, limit=9)
    assert newest_first is not None
    assert newest_first[-1].message == "first"


def test_jobs_do_not_share_keys_or_numbers(database: Database, project_id: ProjectId) -> None:
    one, other = add_job(database, project_id), add_job(database, project_id)
    append(database, one, [step_event(1)])
    append(database, other, [step_event(1)])
    assert stored(database, one) == stored(database, other) == [(1, "step:1")]


def test_an_event_of_several_jobs_comes_once_to_each_as_its_next(database: Database, project_id: ProjectId) -> None:
    one, other = add_job(database, project_id), add_job(database, project_id)
    append(database, one, [step_event(1)])
    for _ in range(2):
        with database.write() as session:
            EventRepository(session).append_to_each([one, other], step_event(2))
    append(database, other, [step_event(3)])
    assert stored(database, one) == [(1, "step:1"), (2, "step:2")]
    assert stored(database, other) == [(1, "step:2"), (2, "step:3")]


def test_writers_at_once_leave_no_gap_and_no_repeat(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)

    def tell_all() -> None:
        for step in range(20):
            append(database, job_id, [step_event(step), step_event(step + 1)])

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(tell_all) for _ in range(2)]:
            future.result()
    rows = stored(database, job_id)
    assert [seq for seq, _ in rows] == list(range(1, 22))
    assert {key for _, key in rows} == {f"step:{step}" for step in range(21)}
    with database.read() as session:
        assert session.get_one(JobRow, job_id).event_count == 21


def test_a_new_event_changes_the_jobs_version(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    append(database, job_id, [step_event(1)])
    with database.read() as session:
        assert session.get_one(JobRow, job_id).version == 1


def test_events_of_no_job_are_refused(database: Database) -> None:
    with pytest.raises(LookupError, match="no job ftjob-1"):
        append(database, JobId("ftjob-1"), [step_event(1)])


def test_an_unknown_place_in_the_list_is_told(database: Database, project_id: ProjectId) -> None:
    job_id = add_job(database, project_id)
    with database.read() as session:
        assert EventRepository(session).list_after(job_id, after="ftevent-1", limit=1) is None
