"""The end of a history: faults cease, users resume what is paused, and every job must end in finite time, rightly."""

from datetime import UTC, datetime
from typing import Any

from schemas.run_layout import EVENTS, OUTCOME, RUNS, SPEC
from tests.simulation.observer import ENDED, require
from tests.simulation.snapshots import Job, Run
from tests.simulation.world import START, World

ROUNDS = 60
STEP_S = (1.0, 5.0, 20.0, 40.0)


def calm_down(world: World) -> None:
    """Raises: InvariantBroken."""
    _end_faults(world)
    for round_number in range(ROUNDS):
        for job in list(world.observer.seen.jobs.values()):
            if job.status == "paused":
                world.ask("resume", job.id)
        world.go_on(world.places[round_number % len(world.places)])
        if _is_over(world):
            break
        world.advance(seconds=STEP_S[min(round_number, len(STEP_S) - 1)])
    _check_ended(world)


def _end_faults(world: World) -> None:
    world.note("calm")
    world.faults.are_on = False
    world.store.is_away = world.cluster.is_away = False
    for node in world.cluster.nodes:
        if node.is_lost:
            world.cluster.find_node(node)
    for place in world.places:
        place.offset_s = 0.0


def _is_over(world: World) -> bool:
    seen = world.observer.seen
    return all(job.status in ENDED and job.lease_owner is None for job in seen.jobs.values()) and not seen.open_runs()


def _check_ended(world: World) -> None:
    seen = world.observer.seen
    for job in seen.jobs.values():
        require(job.status in ENDED, f"{job.id} never ended: {job}, runs {runs_of(world, job)}")
        require(job.lease_owner is None, f"{job.id} has ended and is still leased by {job.lease_owner}")
        _check_result(world, job)
    require(not seen.open_runs(), f"runs are still open: {seen.open_runs()}")
    for run in seen.runs.values():
        _check_usage(world, run)
    _check_run_folders(world)


def _check_result(world: World, job: Job) -> None:
    training = world.trainings[job.id]
    keys = [event.key for event in world.reader.events_after(job.id, 0)]
    require(len(keys) == len(set(keys)), f"{job.id} tells an event twice: {keys}")
    match job.status:
        case "succeeded":
            steps = [key for key in keys if key.startswith("step:")]
            require(steps == [f"step:{n}" for n in range(1, training.steps + 1)], f"{job.id} told {steps}")
            kept = [step for step in range(1, training.steps + 1) if training.is_kept(step)]
            there = world.reader.checkpoint_steps(job.id)
            require(there == kept, f"{job.id} has checkpoints {there} instead of {kept}")
        case "failed":
            _check_failure(world, job)


def _check_run_folders(world: World) -> None:
    """Every second result is deleted while the store is away. What has a name stays, and the records, and no more."""
    succeeded = [job.id for job in world.observer.seen.jobs.values() if job.status == "succeeded"]
    world.store.is_away = True
    for job_id in succeeded[::2]:
        world.delete_results_of(job_id)
    world.store.is_away = False
    while world.sweep():
        pass
    objects = {key for key in world.store.objects if key.startswith(f"{RUNS}/")}
    named = {key for name in world.reader.names_in_run_folders() for key in _objects_of(name, objects)}
    unseen = tuple(  # those that nobody could know of: they may have written later
        f"{RUNS}/{process.request.run_id.rpartition('-')[0]}/{process.request.run_id}/"
        for process in world.cluster.all
        if process.was_late or process.cut_off_until_s is not None
    )
    left = [key for key in objects - named if key.split("/")[3] not in (SPEC, EVENTS, OUTCOME)]
    require(all(key.startswith(unseen) for key in left), f"nothing names {left}")


def _objects_of(name: str, objects: set[str]) -> set[str]:
    """A file's one, or all in an adapter's folder."""
    found = {key for key in objects if key == name or key.startswith(f"{name}/")}
    require(bool(found), f"nothing lies under {name}")
    return found


def _check_failure(world: World, job: Job) -> None:
    """A job fails by what is wrong with it, or by as many losses as it may have."""
    causes: dict[str | None, Any] = {
        "file_not_found": lambda: job.training_file_id in world.deleted_files,
        "invalid_file": lambda: world.files[job.training_file_id].endswith(b"not json\n"),
        "loss_not_finite": lambda: world.trainings[job.id].fails_at is not None,
        "insufficient_resources": lambda: job.attempt == 0,  # the observer knows what was seen of the cluster by then
        "run_lost": lambda: _count_lost(world, job) >= world.layout.max_attempts,
    }
    is_explained = causes.get(job.error_code, lambda: False)()
    require(is_explained, f"{job.id} failed: {job.error_code}: {job.error_message}")


def _count_lost(world: World, job: Job) -> int:
    """One that finished on a node that was cut off may have been lost to everybody before."""
    mine = [process for process in world.cluster.all if process.request.run_id.startswith(f"{job.id}-")]
    return sum(not process.has_finished or process.cut_off_until_s is not None for process in mine)


def _check_usage(world: World, run: Run) -> None:
    """A run's row covers what ran, as far as anybody could see."""
    created_s, ended_s = _seconds(run.created_at), _seconds(run.ended_at)
    require(ended_s >= created_s, f"{run.id} ended before it began: {run}")
    if world.clocks_have_jumped:
        return
    for process in world.cluster.all:
        if process.request.run_id == run.id and process.started_s is not None and not process.was_late:
            require(process.started_s >= created_s, f"{run.id} ran before its row")
            is_seen = process.cut_off_until_s is None and process.ended_s is not None
            require(not is_seen or process.ended_s <= ended_s, f"{run.id} ran until {process.ended_s}: {run}")


def runs_of(world: World, job: Job) -> list[Run]:
    return [run for run in world.observer.seen.runs.values() if run.job_id == job.id]


def _seconds(moment: Any) -> float:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return (moment - START).total_seconds()
