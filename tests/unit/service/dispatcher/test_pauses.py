"""Jobs that wait: paused by their user or by a guard, stopped at a step, and gone on from there."""

from pathlib import Path

import pytest

from schemas.run_layout import SPEC
from schemas.run_spec import RunSpec
from service.backends.backend import RunRequest
from service.jobs.job_errors import JobAlreadyPaused, JobNotPaused
from tests.unit.service.dispatcher.scripted_backend import STOPPED, Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import (
    message_event,
    step_event,
    whole_run,
    write_chunk,
    write_outcome,
)
from tests.unit.service.dispatcher.world import open_world, pairs

pytestmark = pytest.mark.slow


def long_at_first(request: RunRequest) -> list[Action]:
    """The first attempt tells two steps and works on; the next goes on from the checkpoint of step 3."""
    if request.run_id.endswith("-1"):
        return [write_chunk(1, step_event(1), step_event(2))]
    return [write_chunk(1, *map(step_event, (4, 5, 6))), write_outcome()]


def stop_after_step_3(_request: RunRequest) -> list[Action]:
    """Asked to stop, the run makes its step, then tells it, then ends."""
    return [lambda _: None, write_chunk(2, step_event(3)), lambda _: STOPPED]


def pausable() -> ScriptedBackend:
    return ScriptedBackend(long_at_first, on_stop=stop_after_step_3)


def test_a_running_job_stops_at_its_step_and_goes_on_from_there(tmp_path: Path) -> None:
    with open_world(tmp_path, pausable(), max_attempts=1) as world:
        job_id = world.submit()
        world.tick(times=3)
        assert world.job(job_id).estimated_finish is not None
        paused = world.pause(job_id)
        assert (paused.status, paused.estimated_finish, paused.finished_at) == ("paused", None, None)
        world.tick(times=9)
        assert world.open_runs() == []
        assert world.steps(job_id) == [1, 2, 3]
        assert (world.job(job_id).status, world.job(job_id).estimated_finish) == ("paused", None)
        assert world.resume(job_id).status == "queued"
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{job_id}/{job_id}-2/{SPEC}"))
        assert [Path(folder).name for folder in spec.resume_from] == [f"{job_id}-1"]
        told = [message for message in world.messages(job_id) if "The job has been" in message]
        assert told == ["The job has been paused", "The job has been resumed"]


def test_a_job_resumed_while_its_run_still_stops_waits_for_its_checkpoint(tmp_path: Path) -> None:
    with open_world(tmp_path, pausable()) as world:
        job_id = world.submit()
        world.tick(times=3)
        world.pause(job_id)
        world.tick()
        world.resume(job_id)
        world.tick()
        assert (world.job(job_id).status, world.attempt(job_id)) == ("queued", 1)
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]


def test_a_job_that_waits_for_its_run_holds_up_no_other(tmp_path: Path) -> None:
    def never(_request: RunRequest) -> list[Action]:
        return [lambda _: None] * 99

    backend = ScriptedBackend(
        lambda request: never(request) if request.run_id.endswith("-1") else whole_run(request), on_stop=never, gpus=2
    )
    with open_world(tmp_path, backend) as world:
        first = world.submit(resources={"gpus": 1})
        world.tick(times=2)
        world.pause(first)
        world.resume(first)
        second = world.submit(resources={"gpus": 1})
        world.tick(times=2)
        assert (world.job(first).status, world.attempt(first)) == ("queued", 1)
        assert world.job(second).status == "running"
        backend.forget_all()
        assert world.tick_until_ended(first).status == "succeeded"


def test_a_queued_job_is_held_until_it_is_resumed(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        world.backend.is_away = True
        job_id = world.submit()
        world.tick()
        assert world.job(job_id).status == "queued"
        world.pause(job_id)
        world.backend.is_away = False
        world.tick(times=5)
        assert (world.job(job_id).status, world.attempt(job_id)) == ("paused", 0)
        world.resume(job_id)
        assert world.tick_until_ended(job_id).status == "succeeded"


def test_a_job_paused_before_its_files_were_validated_still_has_them_validated(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id, bad = world.submit(), world.submit(pairs(2) + b"not json\n")
        for each in (job_id, bad):
            world.pause(each)
        world.tick(times=3)
        assert world.job(bad).status == "paused"
        assert world.resume(job_id).status == world.resume(bad).status == "validating_files"
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.tick_until_ended(bad).status == "failed"


def test_a_job_that_its_guard_paused_goes_on_when_resumed(tmp_path: Path) -> None:
    def guarded(request: RunRequest) -> list[Action]:
        if request.run_id.endswith("-1"):
            guard = message_event("guard:2", "validation KL 0.6 at step 2 is above max_kl 0.5; pausing")
            return [write_chunk(1, step_event(1), step_event(2), guard), write_outcome(is_paused=True)]
        return [write_chunk(1, *map(step_event, (3, 4, 5, 6))), write_outcome()]

    with open_world(tmp_path, ScriptedBackend(guarded), max_attempts=1) as world:
        job_id = world.submit()
        world.tick(times=6)
        job = world.job(job_id)
        assert (job.status, job.estimated_finish, job.error) == ("paused", None, None)
        assert world.open_runs() == []
        assert world.messages(job_id)[-1] == "The job has been paused"
        world.resume(job_id)
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]


def test_a_paused_job_can_be_cancelled_while_its_run_still_stops(tmp_path: Path) -> None:
    with open_world(tmp_path, pausable()) as world:
        job_id = world.submit()
        world.tick(times=3)
        world.pause(job_id)
        world.tick()
        world.cancel(job_id)
        assert world.tick_until_ended(job_id).status == "cancelled"
        assert world.steps(job_id) == [1, 2]


def test_a_run_that_had_finished_when_its_job_was_paused_is_published_after_the_resume(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda request: [] if request.run_id.endswith("-1") else [write_outcome()])
    with open_world(tmp_path, backend) as world:
        job_id = world.submit()
        world.tick(times=2)
        for act in whole_run(backend.requests[next(iter(backend.requests))]):
            act(backend.requests[next(iter(backend.requests))])
        world.pause(job_id)
        world.tick(times=3)
        assert (world.job(job_id).status, world.job(job_id).result_files) == ("paused", [])
        world.resume(job_id)
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]


def test_a_service_that_ends_while_a_run_stops_for_a_pause_keeps_its_steps(tmp_path: Path) -> None:
    with open_world(tmp_path, pausable()) as world:
        job_id = world.submit()
        world.tick(times=3)
        world.pause(job_id)
        write_chunk(2, step_event(3))(next(iter(world.backend.requests.values())))
        world.dispatcher.interrupt_runs()
        world.backend.forget_all()
        world.restart()
        world.tick(times=2)
        assert (world.job(job_id).status, world.steps(job_id), world.open_runs()) == ("paused", [1, 2, 3], [])


def test_a_job_can_be_paused_again_and_again(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: []), max_attempts=1) as world:
        job_id = world.submit()
        for attempt in (1, 2, 3):
            world.tick(times=3)
            assert (world.job(job_id).status, world.attempt(job_id)) == ("running", attempt)
            world.pause(job_id)
            with pytest.raises(JobAlreadyPaused, match="resume it to go on, or cancel it"):
                world.pause(job_id)
            world.resume(job_id)
            with pytest.raises(JobNotPaused, match='its status is "queued"'):
                world.resume(job_id)
        assert world.messages(job_id).count("The job has been paused") == 3
