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
from tests.simulation.observer import Quota
from tests.simulation.trainer import Training
from tests.simulation.world import World, open_world

pytestmark = pytest.mark.slow

ROUNDS = 40
MIN_CHANGES = 12
SMOOTH = Training(steps=2, checkpoint_every=1)
LOST_ONCE = Training(steps=2, checkpoint_every=1, first_dies_at=2)
GUARDED = Training(steps=2, checkpoint_every=1, pauses_at=1)
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


def _sweep(database: Database, training: Training, user: User, *, attempts: int, keeps_ids: bool) -> int:
    """Return how many calls there are to crash at."""
    number, has_crashed = 0, True
    while has_crashed:
        number += 1
        layout = Layout(1, (1,), (Quota(running=None, queued=None),), max_attempts=attempts, keeps_ids=keeps_ids)
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


def _count(world: World, job_id: str, prefix: str) -> int:
    return sum(event.key.startswith(prefix) for event in world.reader.events_after(job_id, 0))
