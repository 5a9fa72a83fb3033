"""Kill the dispatcher after each call that changes anything, once each; another goes on, and nobody sees it.

To die anywhere else, in a transaction before its commit too, leaves the world as to die after the last such call.
"""

from collections.abc import Callable
from random import Random

import pytest

from service.db.engine import Database
from tests.postgres import PostgresDatabases
from tests.simulation.ending import calm_down
from tests.simulation.faults import Faults
from tests.simulation.layout import Layout
from tests.simulation.observer import WAITING, Quota
from tests.simulation.trainer import Training
from tests.simulation.world import World, open_world

pytestmark = pytest.mark.slow

ROUNDS = 40
MIN_CHANGES = 12
SMOOTH = Training(steps=2, checkpoint_every=1)
LOST_ONCE = Training(steps=2, checkpoint_every=1, first_dies_at=2)
LONG = Training(steps=6, checkpoint_every=1)
GUARDED = Training(steps=2, checkpoint_every=1, pauses_at=1)
SLOW = 2
"""A seed whose first trainer takes its time for a step."""
User = Callable[[World, str], None]
"""What somebody does after each round."""


def watch_only(_world: World, _job_id: str) -> None:
    """What most users do."""


def resume(world: World, job_id: str) -> None:
    if world.observer.seen.jobs[job_id].status == "paused":
        world.ask("resume", job_id)


def pause_and_resume(world: World, job_id: str) -> None:
    resume(world, job_id)
    if world.observer.seen.jobs[job_id].status == "running" and not _count(world, job_id, "job:queued:"):
        world.ask("pause", job_id)


@pytest.mark.parametrize(
    ("user", "training", "attempts", "keeps_ids"),
    [
        (watch_only, SMOOTH, 1, True),
        (watch_only, LOST_ONCE, 2, True),
        (watch_only, LOST_ONCE, 2, False),
        (pause_and_resume, SMOOTH, 2, True),
        (resume, GUARDED, 2, True),
    ],
    ids=[
        "a smooth run",
        "a run lost once",
        "a run lost once and a dispatcher that is replaced",
        "paused by its user",
        "paused by its guard",
    ],
)
def test_a_crash_anywhere_changes_nothing_that_is_seen(
    memory_database: Database, user: User, training: Training, attempts: int, keeps_ids: bool
) -> None:
    calls = _sweep(memory_database, training, user, attempts=attempts, keeps_ids=keeps_ids)
    assert calls > MIN_CHANGES, "there must have been a crash at every call"


def test_a_crash_anywhere_changes_nothing_on_postgresql(postgres: PostgresDatabases) -> None:
    database = Database(postgres.new_url())
    try:
        assert _sweep(database, LOST_ONCE, watch_only, attempts=2, keeps_ids=True) > MIN_CHANGES
    finally:
        database.close()


def test_a_crash_anywhere_of_a_preemption_loses_no_step(memory_database: Database) -> None:
    """A job of higher priority comes to the one GPU: the first is stopped once, and goes on after it."""
    number, has_crashed = 0, True
    while has_crashed:
        number += 1
        faults = Faults(Random(number))
        with open_world(memory_database, _layout(max_attempts=1, keeps_ids=True), faults, Random(SLOW)) as world:
            has_crashed = _tell_preemption(world, crash_after=number)
    assert number > MIN_CHANGES, "there must have been a crash at every call"


def _tell_preemption(world: World, *, crash_after: int) -> bool:
    """`crash_after`: so many changes after the second job has come. False: it ran before there were so many."""
    low = world.submit(0, LONG, gpus=1)
    assert low is not None
    while not _count(world, low, "step:"):
        world.go_on(world.places[0])
        world.advance(seconds=5)
    high = world.submit(0, SMOOTH, gpus=1, priority=1)
    assert high is not None
    world.faults.crash_after_change = last = world.faults.changes + crash_after
    while world.observer.seen.jobs[high].status in WAITING:
        world.go_on(world.places[0])
        world.advance(seconds=5)
    has_crashed, world.faults.crash_after_change = world.faults.changes >= last, None
    calm_down(world)
    for job_id, attempts in ((low, 2), (high, 1)):
        job = world.observer.seen.jobs[job_id]
        assert (job.status, job.attempt) == ("succeeded", attempts)
    assert {process.request.run_id for process in world.cluster.all} == {f"{low}-1", f"{high}-1", f"{low}-2"}
    assert _count(world, low, f"run:{low}-1:preempted") == _count(world, high, f"preempts:{low}-1") == 1
    return has_crashed


def _layout(*, max_attempts: int, keeps_ids: bool) -> Layout:
    return Layout(1, (1,), (Quota(running=None, queued=None),), max_attempts=max_attempts, keeps_ids=keeps_ids)


def _sweep(database: Database, training: Training, user: User, *, attempts: int, keeps_ids: bool) -> int:
    """Return how many calls there are to crash at."""
    number, has_crashed = 0, True
    while has_crashed:
        number += 1
        layout = _layout(max_attempts=attempts, keeps_ids=keeps_ids)
        faults = Faults(Random(number), crash_after_change=number)
        with open_world(database, layout, faults, Random(1)) as world:
            _tell(world, training, user, attempts=attempts)
            has_crashed = faults.changes >= number
    return number


def _tell(world: World, training: Training, user: User, *, attempts: int) -> None:
    job_id = world.submit(0, training)
    assert job_id is not None
    for _ in range(ROUNDS):
        world.go_on(world.places[0])
        user(world, job_id)
        if world.observer.seen.jobs[job_id].status == "succeeded":
            break
        world.advance(seconds=5)
    calm_down(world)
    job = world.observer.seen.jobs[job_id]
    assert (job.status, job.attempt) == ("succeeded", attempts)
    ran = {process.request.run_id for process in world.cluster.all}
    assert ran | {f"{job_id}-1"} == {f"{job_id}-{number + 1}" for number in range(attempts)}, (
        "paused, the first may not"
    )
    assert _count(world, job_id, "job:succeeded") == 1
    if user is not watch_only:
        assert _count(world, job_id, "job:queued:") == 1
        assert _count(world, job_id, "job:paused:") + _count(world, job_id, f"run:{job_id}-1:paused") == 1


def _count(world: World, job_id: str, prefix: str) -> int:
    return sum(event.key.startswith(prefix) for event in world.reader.events_after(job_id, 0))
