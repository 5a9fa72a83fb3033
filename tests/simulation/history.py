"""A history by seed: some dispatchers, projects and jobs, some minutes of faults, then calm, in which all must end."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from service.db.engine import Database
from tests.simulation.ending import calm_down
from tests.simulation.faults import draw_faults
from tests.simulation.layout import Layout
from tests.simulation.observer import Quota
from tests.simulation.trainer import Training
from tests.simulation.world import BAD_FILE, GOOD_FILE, World, open_world

SEEDS_VARIABLE = "SIMULATION_SEEDS"
"""`17`, or `17-90` for a range: tells those histories instead of the usual ones."""


def tell_history(database: Database, seed: int) -> None:
    """Raises: AssertionError, with the seed and what happened."""
    rng = Random(seed)
    trace: list[str] = []
    try:
        with open_world(database, draw_layout(rng), draw_faults(rng), rng) as world:
            trace = world.trace
            _act(world, rng)
            calm_down(world)
    except AssertionError as error:
        happened = "\n".join(trace[-60:])
        message = f"seed {seed}: {error}\n{happened}\nTell it again: {SEEDS_VARIABLE}={seed} pytest {__file__}"
        raise AssertionError(message) from error


def seeds(usual: range) -> range:
    asked = os.environ.get(SEEDS_VARIABLE)
    if asked is None:
        return usual
    first, _, last = asked.partition("-")
    return range(int(first), int(last or first) + 1)


def draw_layout(rng: Random) -> Layout:
    projects = rng.choice((1, 1, 2))
    return Layout(
        dispatchers=rng.choice((1, 2, 2)),
        node_gpus=rng.choice(((0,), (1,), (2,), (1, 1), (1, 2))),
        quotas=tuple(
            Quota(running=rng.choice((None, 1, 2)), queued=rng.choice((None, 1, 2, 3))) for _ in range(projects)
        ),
        max_attempts=rng.choice((1, 2, 3, 4)),
        keeps_ids=rng.random() < 0.3,
    )


def draw_training(rng: Random) -> Training:
    steps = rng.randint(2, 4)
    return Training(
        steps=steps,
        checkpoint_every=rng.randint(1, 3),
        fails_at=rng.randint(1, steps) if rng.random() < 0.1 else None,
        pauses_at=rng.randint(1, steps) if rng.random() < 0.1 else None,
    )


def submit(world: World, rng: Random) -> None:
    gpus = rng.randint(0, max(1, sum(world.layout.node_gpus)))
    world.submit(
        rng.randrange(len(world.layout.quotas)),
        draw_training(rng),
        content=BAD_FILE if rng.random() < 0.05 else GOOD_FILE,
        gpus=gpus,
        priority=rng.choice((0, 0, 1)),
    )


def ask(world: World, rng: Random) -> None:
    job_id = _any_job(world, rng)
    if job_id:
        world.ask(rng.choice(("cancel", "pause", "pause", "resume", "resume")), job_id)


def delete_file(world: World, rng: Random) -> None:
    job_id = _any_job(world, rng)
    if job_id:
        world.delete_file_of(job_id)


def sweep(world: World, _rng: Random) -> None:
    world.sweep()


def crash(world: World, rng: Random) -> None:
    world.kill(rng.choice(world.places))


def give_back(world: World, rng: Random) -> None:
    world.give_back(rng.choice(world.places))


def restart_with_cluster(world: World, rng: Random) -> None:
    world.restart_with_cluster(rng.choice(world.places))


def toggle_store(world: World, _rng: Random) -> None:
    world.store.is_away = not world.store.is_away
    world.note(f"store {'away' if world.store.is_away else 'back'}")


def toggle_cluster(world: World, _rng: Random) -> None:
    world.cluster.is_away = not world.cluster.is_away
    world.note(f"cluster {'away' if world.cluster.is_away else 'back'}")


def toggle_node(world: World, rng: Random) -> None:
    node = rng.choice(world.cluster.nodes)
    if node.is_lost:
        world.cluster.find_node(node)
        world.note("node found")
    else:
        world.cluster.lose_node(node, cut_off_s=rng.choice((0, 10, 60)))
        world.note("node lost")


def lose_head(world: World, _rng: Random) -> None:
    world.cluster.forget_all()
    world.note("head forgot all")


def kill_run(world: World, rng: Random) -> None:
    alive = world.cluster.alive()
    if alive:
        process = rng.choice(alive)
        world.cluster.kill(process)
        world.note(f"killed {process.request.run_id[-6:]}")


def jump(world: World, rng: Random) -> None:
    world.jump(rng.choice(world.places), seconds=rng.choice((-7200, -60, -5, 5, 60, 7200)))


def wait(_world: World, _rng: Random) -> None:
    """Nothing but time."""


@dataclass(frozen=True, slots=True)
class Act:
    do: Callable[[World, Random], None]
    weight: int


ACTS = (
    Act(submit, 2),
    Act(ask, 5),
    Act(wait, 6),
    Act(delete_file, 1),
    Act(sweep, 2),
    Act(crash, 1),
    Act(give_back, 1),
    Act(restart_with_cluster, 1),
    Act(toggle_store, 2),
    Act(toggle_cluster, 2),
    Act(toggle_node, 2),
    Act(lose_head, 1),
    Act(kill_run, 2),
    Act(jump, 1),
)


def _act(world: World, rng: Random) -> None:
    submit(world, rng)
    for act in rng.choices([act.do for act in ACTS], [act.weight for act in ACTS], k=rng.randint(5, 12)):
        act(world, rng)
        world.go_on(rng.choice(world.places))
        world.advance(seconds=rng.choice((0.5, 2, 5, 5, 15, 40)))


def _any_job(world: World, rng: Random) -> str | None:
    jobs = list(world.observer.seen.jobs)
    return rng.choice(jobs) if jobs else None
