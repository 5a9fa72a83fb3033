"""Kill the dispatcher before and after each of its calls, once each; another goes on, and nobody sees that it happened."""

from collections.abc import Callable
from random import Random

import pytest

from service.db.engine import Database
from tests.postgres import PostgresDatabases
from tests.simulation.ending import calm_down
from tests.simulation.faults import CRASHES, Fate, Faults
from tests.simulation.observer import Quota
from tests.simulation.trainer import Training
from tests.simulation.world import Layout, World, open_world

pytestmark = pytest.mark.slow

ROUNDS = 40
User = Callable[[World, str], None]
"""What somebody does after each round."""


def watch_only(_world: World, _job_id: str) -> None:
    """What most users do."""


def lose_first_run(world: World, job_id: str) -> None:
    """The first run dies once it has told a step."""
    for process in world.cluster.alive():
        if process.request.run_id == f"{job_id}-1" and _has_told(world, job_id, "step:2"):
            world.cluster.kill(process)


def pause_and_resume(world: World, job_id: str) -> None:
    status = world.observer.seen.jobs[job_id].status
    if status == "paused":
        world.ask("resume", job_id)
    elif status == "running" and _has_told(world, job_id, "step:2") and not _count(world, job_id, "job:paused:"):
        world.ask("pause", job_id)


@pytest.mark.parametrize("keeps_ids", [True, False], ids=["restarted", "replaced"])
@pytest.mark.parametrize(
    ("user", "pauses_at", "attempts"),
    [(watch_only, None, 1), (lose_first_run, None, 2), (pause_and_resume, None, 2), (pause_and_resume, 2, 2)],
    ids=["a smooth run", "a run lost once", "paused by its user", "paused by its guard"],
)
def test_a_crash_at_any_call_changes_nothing_that_is_seen(
    memory_database: Database, user: User, pauses_at: int | None, attempts: int, keeps_ids: bool
) -> None:
    training = Training(steps=5, checkpoint_every=2, pauses_at=pauses_at)
    calls = _sweep(memory_database, training, user, attempts=attempts, keeps_ids=keeps_ids)
    assert calls > 40, "there must have been a crash at every call"


def test_a_crash_at_any_call_changes_nothing_on_postgresql(postgres: PostgresDatabases) -> None:
    database = Database(postgres.new_url())
    try:
        training = Training(steps=5, checkpoint_every=2)
        assert _sweep(database, training, lose_first_run, attempts=2, keeps_ids=True) > 40
    finally:
        database.close()


def _sweep(database: Database, training: Training, user: User, *, attempts: int, keeps_ids: bool) -> int:
    """Return how many calls there are to crash at."""
    number, has_crashed = 0, True
    while has_crashed:
        number += 1
        for fate in CRASHES:
            layout = Layout(1, (1,), (Quota(running=None, queued=None),), max_attempts=attempts, keeps_ids=keeps_ids)
            faults = Faults(Random(number), planned={number: fate})
            with open_world(database, layout, faults, Random(1)) as world:
                _tell(world, training, user, attempts=attempts)
                has_crashed = not faults.planned
    return number


def _tell(world: World, training: Training, user: User, *, attempts: int) -> None:
    job_id = world.submit(0, training)
    assert job_id is not None
    for _ in range(ROUNDS):
        world.go_on(world.places[0])
        user(world, job_id)
        if world.observer.seen.jobs[job_id].status == "succeeded":
            break
        world.advance(seconds=4)
    calm_down(world)
    job = world.observer.seen.jobs[job_id]
    assert (job.status, job.attempt) == ("succeeded", attempts)
    assert {process.request.run_id for process in world.cluster.all} == {f"{job_id}-{n + 1}" for n in range(attempts)}
    assert _count(world, job_id, "job:succeeded") == 1
    if user is pause_and_resume:
        assert _count(world, job_id, "job:queued:") == 1


def _has_told(world: World, job_id: str, key: str) -> bool:
    return _count(world, job_id, key) > 0


def _count(world: World, job_id: str, prefix: str) -> int:
    return sum(event.key.startswith(prefix) for event in world.reader.events_after(job_id, 0))
