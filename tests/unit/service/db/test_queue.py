"""The queue: whose turn it is, and that each job has it once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from schemas.ids import DispatcherId, JobId, ProjectId
from service.db.engine import Database
from service.db.heads import ROOM_KEPT
from service.db.jobs import JobRepository
from service.db.leases import Lease
from service.db.projects import ProjectRepository
from service.db.queue import Held, HeldBack, QueueRepository
from service.db.tables import JobRow
from service.dispatcher.requirements import Requirements
from tests.unit.service.db.rows import FIRST_DISPATCHER, NOW, add_job, add_project, add_run, claim_next

JOBS = 20
CLAIMERS = 6


def claim_all(database: Database, *, owner: str = "dispatcher-1") -> list[JobId]:
    claimed = []
    while (
        job_id := claim_next(database, owner=DispatcherId(owner), now=NOW + timedelta(seconds=len(claimed)))
    ) is not None:
        claimed.append(job_id)
    return claimed


def end(database: Database, job_id: JobId) -> None:
    with database.write() as session:
        assert JobRepository(session).advance(job_id, seen="running", to="succeeded", changes={"finished_at": NOW})


def test_the_oldest_queued_job_is_claimed(database: Database, project_id: ProjectId) -> None:
    add_job(database, project_id, status="validating_files")
    first, second = add_job(database, project_id), add_job(database, project_id)
    assert claim_all(database) == [first, second]
    with database.read() as session:
        job = session.get_one(JobRow, first)
    assert (job.status, job.attempt, job.version, job.started_at) == ("running", 1, 1, NOW)
    assert (job.lease_owner, job.lease_expires_at) == ("dispatcher-1", NOW + timedelta(seconds=30))


def test_of_several_jobs_claimed_together_one_that_was_taken_away_is_left_out(
    database: Database, project_id: ProjectId
) -> None:
    another = add_project(database)
    first, gone, last = add_job(database, project_id), add_job(database, project_id), add_job(database, another)
    with database.write() as session:
        assert JobRepository(session).advance(gone, seen="queued", to="cancelled", changes={"finished_at": NOW})
        claimed = QueueRepository(session).claim([last, gone, first], Lease(FIRST_DISPATCHER, NOW), now=NOW)
        assert [(job.id, job.status, job.attempt) for job in claimed] == [(last, "running", 1), (first, "running", 1)]
    with database.read() as session:
        turns = [ProjectRepository(session).get(each).last_claimed_at for each in (project_id, another)]
    assert turns == [NOW, NOW]


def test_claimers_at_once_get_each_job_once(database: Database, project_id: ProjectId) -> None:
    projects = [project_id, add_project(database), add_project(database)]
    waiting = {add_job(database, projects[number % 3]) for number in range(JOBS)}
    with ThreadPoolExecutor(CLAIMERS) as pool:
        futures = [pool.submit(claim_all, database, owner=f"dispatcher-{n}") for n in range(CLAIMERS)]
        claimed = [job_id for future in futures for job_id in future.result()]
    assert len(claimed) == JOBS
    assert set(claimed) == waiting


def test_within_a_project_the_highest_priority_goes_first(database: Database, project_id: ProjectId) -> None:
    low, middle, high = (add_job(database, project_id, priority=priority) for priority in (-1, 0, 7))
    high_too = add_job(database, project_id, priority=7)
    assert claim_all(database) == [high, high_too, middle, low]


def test_a_priority_wins_nothing_over_another_project(database: Database, project_id: ProjectId) -> None:
    first, second = add_job(database, project_id, priority=50), add_job(database, project_id, priority=50)
    other = add_job(database, add_project(database))
    assert claim_all(database) == [first, other, second]


def test_the_project_that_runs_fewest_jobs_goes_first(database: Database, project_id: ProjectId) -> None:
    many = [add_job(database, project_id) for _ in range(4)]
    assert [claim_next(database), claim_next(database)] == many[:2]
    few = [add_job(database, add_project(database)) for _ in range(1)]
    assert claim_next(database) == few[0]
    assert claim_next(database) == many[2]


def test_with_room_for_one_job_projects_take_turns(database: Database, project_id: ProjectId) -> None:
    other = add_project(database)
    ours, theirs = [add_job(database, project_id) for _ in range(3)], [add_job(database, other) for _ in range(2)]
    turns = []
    for second in range(5):
        job_id = claim_next(database, now=NOW + timedelta(seconds=second))
        assert job_id is not None
        turns.append(job_id)
        end(database, job_id)
    assert turns == [ours[0], theirs[0], ours[1], theirs[1], ours[2]]


def test_a_project_runs_no_more_than_its_quota(database: Database) -> None:
    project_id = add_project(database, max_running_jobs=2)
    jobs = [add_job(database, project_id) for _ in range(3)]
    assert claim_all(database) == jobs[:2]
    end(database, jobs[0])
    assert claim_all(database) == jobs[2:]


def test_a_quota_of_none_holds_a_project_and_no_other(database: Database, project_id: ProjectId) -> None:
    add_job(database, add_project(database, max_running_jobs=0))
    ours = add_job(database, project_id)
    assert claim_all(database) == [ours]


def test_a_job_with_an_open_run_waits(database: Database, project_id: ProjectId) -> None:
    resumed, other = add_job(database, project_id, priority=1), add_job(database, project_id)
    with database.write() as session:
        add_run(session, resumed)
    assert claim_all(database) == [other]


def test_open_runs_are_counted_by_what_they_hold(database: Database, project_id: ProjectId) -> None:
    with database.write() as session:
        assert QueueRepository(session).count_held() == Held(gpus=0, cpu_runs=0)
    for needed in (Requirements(2, 1), Requirements(4, 1), Requirements(3, 0)):
        job_id = add_job(database, project_id)
        with database.write() as session:
            add_run(session, job_id, needed)
    with database.read() as session:
        assert QueueRepository(session).count_held() == Held(gpus=6, cpu_runs=1)


def test_waiting_jobs_are_counted_up_to_the_limit_asked_for(database: Database, project_id: ProjectId) -> None:
    for status in ("validating_files", "queued", "queued", "paused", "succeeded"):
        add_job(database, project_id, status=status)
    add_job(database, add_project(database))
    with database.read() as session:
        queue = QueueRepository(session)
        assert queue.count_waiting(project_id, at_most=9) == 3
        assert queue.count_waiting(project_id, at_most=2) == 2


def list_held_back(database: Database) -> list[HeldBack]:
    with database.read() as session:
        return QueueRepository(session).list_held_back(now=NOW, limit=9)


def start(database: Database, job_id: JobId, *, gpus: int) -> None:
    with database.write() as session:
        assert JobRepository(session).advance(job_id, seen="queued", to="running", changes={"attempt": 1})
        add_run(session, job_id, Requirements(gpus, 1) if gpus else Requirements(1, 0))


def test_a_project_holds_no_more_gpus_than_its_quota_and_its_jobs_on_cpus_go_past(database: Database) -> None:
    project_id = add_project(database, max_gpus=4)
    start(database, add_job(database, project_id), gpus=3)
    too_many, fits, on_cpus = (add_job(database, project_id, gpus=gpus) for gpus in (2, 1, 0))
    assert claim_all(database) == [on_cpus]
    assert list_held_back(database) == [HeldBack(too_many, "gpus")]
    with database.write() as session:
        assert JobRepository(session).advance(too_many, seen="queued", to="cancelled", changes={"finished_at": NOW})
    assert claim_all(database) == [fits]


def test_a_project_without_gpu_hours_left_waits_for_the_month_to_end_and_its_jobs_on_cpus_do_not(
    database: Database,
) -> None:
    project_id = add_project(database, gpu_hours_used_up_until=NOW + timedelta(days=3))
    waiting, on_cpus = add_job(database, project_id, gpus=1, priority=9), add_job(database, project_id)
    assert claim_all(database) == [on_cpus]
    assert list_held_back(database) == [HeldBack(waiting, "gpu_hours")]
    assert claim_next(database, now=NOW + timedelta(days=4)) == waiting


def test_a_job_that_was_told_what_holds_it_back_is_listed_only_if_it_could_preempt(database: Database) -> None:
    project_id = add_project(database, max_running_jobs=1)
    low = add_job(database, project_id, priority=1)
    start(database, low, gpus=0)
    job_id = add_job(database, project_id, priority=1)
    assert list_held_back(database) == [HeldBack(job_id, "running")]
    with database.write() as session:
        session.get_one(JobRow, job_id).told_waiting_for = "running"
    assert list_held_back(database) == []
    with database.write() as session:
        session.get_one(JobRow, low).priority = 0
    assert list_held_back(database) == [HeldBack(job_id, "running")]


def test_the_next_job_of_each_project_is_untold_of_the_cluster_unless_a_quota_holds_it_back(
    database: Database, project_id: ProjectId
) -> None:
    first, behind = add_job(database, project_id), add_job(database, project_id)
    waits_for_room = add_job(database, add_project(database))
    held_back = add_project(database, gpu_hours_used_up_until=NOW + timedelta(days=3))
    add_job(database, held_back, gpus=1)
    on_cpus = add_job(database, held_back)
    add_job(database, add_project(database, max_running_jobs=0))
    with database.write() as session:
        session.get_one(JobRow, waits_for_room).told_waiting_for = "room"

    def list_untold(*, limit: int) -> list[JobId]:
        with database.read() as session:
            return QueueRepository(session).list_untold_of_cluster(now=NOW, limit=limit)

    assert list_untold(limit=100) == [first, waits_for_room, on_cpus]
    with database.write() as session:
        session.get_one(JobRow, first).told_waiting_for = "cluster"
    assert list_untold(limit=1) == [waits_for_room]
    assert behind not in list_untold(limit=100)


def test_a_job_that_had_others_stopped_goes_first_for_a_while(database: Database, project_id: ProjectId) -> None:
    start(database, add_job(database, project_id), gpus=0)
    mine, theirs = add_job(database, project_id), add_job(database, add_project(database))

    def next_job(*, after: timedelta) -> JobId:
        with database.read() as session:
            return QueueRepository(session).list_heads(now=NOW + after, limit=1)[0].job_id

    assert next_job(after=timedelta()) == theirs
    with database.write() as session:
        session.get_one(JobRow, mine).preempting_since = NOW
    assert next_job(after=ROOM_KEPT / 2) == mine
    assert next_job(after=ROOM_KEPT * 2) == theirs


def test_a_run_of_a_job_that_was_told_to_stop_does_not_stay(database: Database, project_id: ProjectId) -> None:
    stays, stops = (add_job(database, project_id) for _ in range(2))
    for job_id, gpus in ((stays, 2), (stops, 4)):
        start(database, job_id, gpus=gpus)
    with database.write() as session:
        assert JobRepository(session).advance(stops, seen="running", to="paused")
    with database.read() as session:
        queue = QueueRepository(session)
        assert (queue.count_held(), queue.count_staying()) == (Held(6, 0), Held(2, 0))
        assert queue.count_staying(project_id) == Held(2, 0)
