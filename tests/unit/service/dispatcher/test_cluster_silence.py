"""Jobs that wait are told when the cluster has not answered for a while; why it does not is for the log alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.fine_tuning import JobEvent
from schemas.ids import JobId
from service.db.jobs import JobRepository
from service.dispatcher.cluster_silence import TOLD_AFTER
from service.dispatcher.waiting import tell_waits_for_cluster
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import whole_run
from tests.unit.service.dispatcher.test_many_dispatchers import second_dispatcher
from tests.unit.service.dispatcher.world import World, open_world

pytestmark = pytest.mark.slow

TOLD = "Waiting for the cluster, which does not answer; the job starts once it does"
A_WHILE_S = TOLD_AFTER.total_seconds()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Its cluster is away, and would run one job for ever."""
    backend = ScriptedBackend(lambda request: [] if request.run_id.endswith("-1") else whole_run(request), gpus=1)
    backend.is_away = True
    with open_world(tmp_path, backend) as world:
        yield world


def told(world: World, job_id: JobId) -> list[JobEvent]:
    return [event for event in world.events(job_id) if event.message.startswith("Waiting for")]


def wait_a_while(world: World) -> None:
    world.tick(times=2)
    world.clock.advance(seconds=A_WHILE_S)
    world.tick(times=2)


def test_a_job_that_waits_for_a_silent_cluster_is_told_once(world: World) -> None:
    job_id = world.submit()
    wait_a_while(world)
    wait_a_while(world)
    assert [(event.level, event.message) for event in told(world, job_id)] == [("warn", TOLD)]
    world.backend.is_away = False
    world.tick()
    assert world.job(job_id).status == "running"
    assert len(told(world, job_id)) == 1


def test_a_cluster_that_comes_up_soon_is_not_worth_an_event(world: World) -> None:
    job_id = world.submit()
    world.tick(times=2)
    world.clock.advance(seconds=A_WHILE_S - 1)
    world.tick(times=2)
    assert told(world, job_id) == []


@pytest.mark.parametrize("answers_to", ["a claim", "nobody"])
def test_silences_that_are_apart_are_not_added_up(world: World, answers_to: str) -> None:
    """Neither are those of which nobody waited."""
    first = world.submit()
    world.tick(times=2)
    if answers_to == "a claim":
        world.backend.is_away = False
    else:
        world.cancel(first)
    world.tick()
    world.backend.is_away = True
    world.clock.advance(seconds=A_WHILE_S)
    second = world.submit()
    world.tick(times=3)
    assert told(world, second) == []


def test_a_job_that_waited_for_room_is_told_of_the_silence_too_and_of_neither_again(world: World) -> None:
    world.backend.is_away = False
    world.submit(resources={"gpus": 1})
    job_id = world.submit(resources={"gpus": 1})
    for is_away in (False, True, False, True):
        world.backend.is_away = is_away
        wait_a_while(world)
    assert [event.level for event in told(world, job_id)] == ["info", "warn"]
    assert told(world, job_id)[1].message == TOLD


def test_a_job_behind_another_is_told_when_it_is_next(world: World) -> None:
    first, second = world.submit(), world.submit()
    wait_a_while(world)
    assert [len(told(world, job_id)) for job_id in (first, second)] == [1, 0]
    world.cancel(first)
    world.tick()
    assert [len(told(world, job_id)) for job_id in (first, second)] == [1, 1]


def test_a_job_whose_user_was_faster_is_told_nothing(world: World) -> None:
    job_id = world.submit()
    world.tick()
    with world.context.database.read() as session:
        seen = JobRepository(session).find_any(job_id)
    assert seen is not None
    world.cancel(job_id)
    with world.context.database.write() as session:
        tell_waits_for_cluster(session, seen, now=world.clock())
    assert told(world, job_id) == []


def test_two_dispatchers_tell_it_once(world: World) -> None:
    job_id, second = world.submit(), second_dispatcher(world)
    for _ in range(3):
        world.tick()
        second.tick()
        world.clock.advance(seconds=A_WHILE_S)
    assert len(told(world, job_id)) == 1
