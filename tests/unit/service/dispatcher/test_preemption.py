"""Jobs of a higher priority get the room of lower ones of their project, which go on later as if never held."""

from datetime import timedelta
from pathlib import Path

import pytest

from schemas.ids import JobId, ProjectId, RunId
from schemas.run_layout import SPEC
from schemas.run_spec import RunSpec
from service.backends.backend import RunRequest
from service.db.preemption import Candidate
from service.db.projects import ProjectRepository
from service.db.runs import RunRepository
from service.db.tables import FileRow, JobRow, ProjectRow
from service.dispatcher.preempt import REST, choose_candidates
from service.dispatcher.room import Shortage
from tests.unit.service.dispatcher.scripted_backend import STOPPED, Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import step_event, whole_run, write_chunk
from tests.unit.service.dispatcher.test_many_dispatchers import set_quota
from tests.unit.service.dispatcher.test_pauses import long_at_first, stop_after_step_3
from tests.unit.service.dispatcher.world import World, open_world

pytestmark = pytest.mark.slow

OTHER_PROJECT = ProjectId("proj_2")


def endless(_request: RunRequest) -> list[Action]:
    return []


def statuses(world: World, *job_ids: JobId) -> list[str]:
    return [world.job(job_id).status for job_id in job_ids]


def add_other_project(world: World) -> None:
    with world.context.database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=OTHER_PROJECT, name="other", created_at=world.clock()))


def submit_elsewhere(world: World, **fields: object) -> JobId:
    job_id = world.submit(**fields)
    with world.context.database.write() as session:
        job = session.get_one(JobRow, job_id)
        job.project_id = session.get_one(FileRow, job.training_file_id).project_id = OTHER_PROJECT
    return job_id


def preemptible(long_job: list[JobId]) -> ScriptedBackend:
    """On one GPU; the job named is stopped at step 3 and goes on from there, the others run through."""

    def script(request: RunRequest) -> list[Action]:
        is_long = request.run_id.rpartition("-")[0] in long_job
        return long_at_first(request) if is_long else whole_run(request)

    return ScriptedBackend(script, on_stop=stop_after_step_3, gpus=1)


def test_a_job_of_higher_priority_stops_a_lower_one_which_goes_on_after_it(tmp_path: Path) -> None:
    long_job: list[JobId] = []
    with open_world(tmp_path, preemptible(long_job), max_attempts=1) as world:
        low = world.submit(resources={"gpus": 1}, priority=-1)
        long_job.append(low)
        world.tick(times=3)
        high = world.submit(resources={"gpus": 1}, priority=5)
        world.tick()
        assert statuses(world, low, high) == ["queued", "queued"]
        assert world.job(low).estimated_finish is None
        assert world.tick_until_ended(high).status == "succeeded"
        assert world.tick_until_ended(low).status == "succeeded"
        assert world.steps(low) == [1, 2, 3, 4, 5, 6]
        assert world.attempt(low) == 2
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{low}/{low}-2/{SPEC}"))
        assert [Path(folder).name for folder in spec.resume_from] == [f"{low}-1"]
        told = f"The job makes room for {high} (priority 5 over -1)"
        assert [message.startswith(told) for message in world.messages(low)].count(True) == 1
        assert f"Job {low} is stopped to make room for this one (priority 5 over -1)" in world.messages(high)
        with world.context.database.read() as session:
            run = RunRepository(session).find(RunId(f"{low}-1"))
        assert run is not None
        assert (run.end_reason, run.preempted_by) == ("stopped for another job", high)


@pytest.mark.parametrize("priority", [0, -1], ids=["as high", "lower"])
def test_a_job_that_is_not_higher_waits_and_says_what_for(tmp_path: Path, priority: int) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=2)) as world:
        first = world.submit(resources={"gpus": 2})
        world.tick(times=2)
        second = world.submit(resources={"gpus": 1}, priority=priority)
        world.tick(times=5)
        assert statuses(world, first, second) == ["running", "queued"]
        told = "Waiting for room in the cluster: the job needs 1 GPU(s), and 0 of the cluster's 2 are free"
        assert world.messages(second).count(told) == 1


def test_no_job_is_stopped_where_that_would_not_give_room_enough(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=4)) as world:
        low, equal = world.submit(resources={"gpus": 1}), world.submit(resources={"gpus": 3}, priority=5)
        world.tick(times=3)
        high = world.submit(resources={"gpus": 2}, priority=5)
        world.tick(times=3)
        assert statuses(world, low, equal, high) == ["running", "running", "queued"]
        assert world.backend.stopped == []


def test_a_job_of_another_project_is_never_stopped(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=1)) as world:
        add_other_project(world)
        theirs = submit_elsewhere(world, resources={"gpus": 1}, priority=-100)
        world.tick(times=2)
        ours = world.submit(resources={"gpus": 1}, priority=100)
        world.tick(times=3)
        assert statuses(world, theirs, ours) == ["running", "queued"]


def test_the_room_goes_to_the_job_that_it_was_made_for_and_to_no_project_that_runs_less(tmp_path: Path) -> None:
    slow_stop = ScriptedBackend(endless, on_stop=lambda _: [lambda _: None] * 2, gpus=2)
    with open_world(tmp_path, slow_stop) as world:
        add_other_project(world)
        kept, low = (world.submit(resources={"gpus": 1}, priority=priority) for priority in (9, 0))
        world.tick(times=3)
        high = world.submit(resources={"gpus": 1}, priority=5)
        world.tick()
        theirs = submit_elsewhere(world, resources={"gpus": 1})
        world.tick(times=2)
        assert statuses(world, kept, low, high, theirs) == ["running", "queued", "queued", "queued"]
        world.backend.forget_all()  # the stopping one has ended; the other is lost, and keeps its room
        world.tick(times=2)
        assert statuses(world, high, theirs) == ["running", "queued"]


def test_a_project_at_its_running_quota_gives_its_place_to_the_higher_job(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=9)) as world:
        set_quota(world, max_running_jobs=1)
        low = world.submit(resources={"gpus": 1})
        world.tick(times=2)
        high = world.submit(resources={"gpus": 1}, priority=1)
        world.tick(times=4)
        assert statuses(world, low, high) == ["queued", "running"]
        assert any(message.endswith("it may run 1 at a time") for message in world.messages(low))


def test_a_project_at_its_gpu_quota_gives_its_gpus_to_the_higher_job(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=9)) as world:
        set_quota(world, max_gpus=3)
        small, large = (world.submit(resources={"gpus": gpus}) for gpus in (1, 2))
        world.tick(times=3)
        high = world.submit(resources={"gpus": 2}, priority=1)
        world.tick(times=4)
        assert statuses(world, small, large, high) == ["running", "queued", "running"]
        told = "this one needs 2 GPU(s), and they hold 3 of the 3 that the project may hold"
        assert any(told in message for message in world.messages(large))


def test_a_job_that_goes_on_is_left_alone_for_a_while(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=1)) as world:
        low = world.submit(resources={"gpus": 1})
        world.tick(times=2)
        high = world.submit(resources={"gpus": 1}, priority=1)
        world.tick(times=4)
        world.cancel(high)
        world.tick(times=4)
        assert (statuses(world, low), world.attempt(low)) == (["running"], 2)
        next_high = world.submit(resources={"gpus": 1}, priority=1)
        world.tick(times=4)
        assert statuses(world, low, next_high) == ["running", "queued"]
        world.clock.advance(seconds=REST.total_seconds())
        world.tick(times=4)
        assert statuses(world, low, next_high) == ["queued", "running"]


def test_a_job_whose_room_is_coming_already_stops_nobody(tmp_path: Path) -> None:
    backend = ScriptedBackend(endless, on_stop=lambda _: [*[lambda _: None] * 3, lambda _: STOPPED], gpus=2)
    with open_world(tmp_path, backend) as world:
        paused, low = (world.submit(resources={"gpus": 1}) for _ in range(2))
        world.tick(times=3)
        world.pause(paused)
        high = world.submit(resources={"gpus": 1}, priority=1)
        world.tick(times=2)
        assert statuses(world, low, high) == ["running", "queued"]
        world.tick(times=5)
        assert statuses(world, low, high) == ["running", "running"]


def test_one_of_two_cpu_jobs_in_turn_gives_way(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless)) as world:
        low = world.submit()
        world.tick(times=2)
        high = world.submit(priority=1)
        world.tick(times=4)
        assert statuses(world, low, high) == ["queued", "running"]


def candidate(name: str, *, gpus: int, priority: int = 0) -> Candidate:
    return Candidate(JobId(name), RunId(f"{name}-1"), 1, priority, gpus)


CANDIDATES = [
    candidate("one", gpus=1),
    candidate("cpu", gpus=0),
    candidate("two", gpus=2),
    candidate("eight", gpus=8),
]


@pytest.mark.parametrize(
    ("shortage", "names"),
    [
        (Shortage(1, 0, 0), ["one"]),
        (Shortage(2, 0, 0), ["one", "cpu"]),
        (Shortage(0, 1, 0), ["one"]),
        (Shortage(0, 2, 0), ["two"]),
        (Shortage(0, 3, 0), ["one", "two"]),
        (Shortage(0, 4, 0), ["eight"]),
        (Shortage(0, 11, 0), ["one", "two", "eight"]),
        (Shortage(0, 12, 0), []),
        (Shortage(0, 0, 1), ["cpu"]),
        (Shortage(0, 0, 2), []),
        (Shortage(1, 2, 0), ["two"]),
        (Shortage(1, -5, 0), ["one"]),
    ],
    ids=str,
)
def test_the_fewest_of_the_lowest_jobs_are_chosen_and_none_in_vain(shortage: Shortage, names: list[str]) -> None:
    assert [chosen.job_id for chosen in choose_candidates(CANDIDATES, shortage)] == names


def test_the_lowest_and_youngest_job_is_stopped(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(endless, gpus=3)) as world:
        older, younger, higher = (world.submit(resources={"gpus": 1}, priority=priority) for priority in (0, 0, 1))
        world.tick(times=4)
        world.clock.advance(seconds=timedelta(minutes=1).total_seconds())
        world.submit(resources={"gpus": 1}, priority=2)
        world.tick()
        assert statuses(world, older, younger, higher) == ["running", "queued", "running"]


def test_a_preempted_run_keeps_the_steps_it_tells_while_it_stops(tmp_path: Path) -> None:
    backend = ScriptedBackend(
        lambda _: [write_chunk(1, step_event(1), step_event(2))], on_stop=stop_after_step_3, gpus=1
    )
    with open_world(tmp_path, backend) as world:
        low = world.submit(resources={"gpus": 1})
        world.tick(times=3)
        world.submit(resources={"gpus": 1}, priority=1)
        world.tick(times=6)
        assert (statuses(world, low), world.steps(low)) == (["queued"], [1, 2, 3])
