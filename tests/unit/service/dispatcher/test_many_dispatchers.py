"""Several dispatchers over one database: each job is worked on by one, and the work of a dead one goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from schemas.ids import DispatcherId, JobId, RunId
from service.backends.backend import BackendUnavailable, RunRequest
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.tables import ProjectRow
from service.dispatcher.loop import Dispatcher
from service.dispatcher.settle import attempt_delay_s
from service.dispatcher.validations import Validations
from service.jobs.job_errors import QuotaExceeded
from tests.lazy_executor import LazyExecutor
from tests.unit.service.dispatcher.scripted_backend import Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import die, step_event, whole_run, write_chunk
from tests.unit.service.dispatcher.world import LEASE_S, PROJECT, World, open_world, with_parts

pytestmark = pytest.mark.slow


def second_dispatcher(world: World) -> Dispatcher:
    context = with_parts(world.context, dispatcher_id=DispatcherId("dispatcher-2"))
    return Dispatcher(context, Validations(context, spawn=lambda work: work()), LazyExecutor())


def owner_of(world: World, job_id: JobId) -> str | None:
    with world.context.database.read() as session:
        job = JobRepository(session).find_any(job_id)
    assert job is not None
    return job.lease_owner


def set_quota(world: World, **limits: float | None) -> None:
    with world.context.database.write() as session:
        project = session.get_one(ProjectRow, PROJECT)
        for name, limit in limits.items():
            setattr(project, name, limit)


def test_a_job_of_a_living_dispatcher_is_left_alone(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda _: [write_chunk(1, step_event(1))])
    with open_world(tmp_path, backend) as world:
        job_id = world.submit()
        world.tick()
        assert owner_of(world, job_id) == "dispatcher-1"
        second = second_dispatcher(world)
        second.tick()
        second.tick()
        assert world.steps(job_id) == []
        world.tick()
        assert world.steps(job_id) == [1]


def test_the_jobs_of_a_dead_dispatcher_go_on_once_its_leases_expire(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.tick(times=2)
        second = second_dispatcher(world)
        world.clock.advance(seconds=LEASE_S + 1)
        for _ in range(12):
            second.tick()
        assert world.job(job_id).status == "succeeded"
        assert world.attempt(job_id) == 1
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        assert owner_of(world, job_id) is None


def test_leases_given_back_are_taken_over_at_once(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.tick(times=2)
        world.dispatcher.stop()
        world.dispatcher.give_back()
        assert owner_of(world, job_id) is None
        second_dispatcher(world).tick()
        assert owner_of(world, job_id) == "dispatcher-2"


def test_a_dispatcher_told_to_stop_begins_no_further_step(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [], gpus=9)) as world:
        world.submit(resources={"gpus": 1})
        world.dispatcher.stop()
        world.tick()
        assert world.backend.requests == {}


def test_a_job_that_was_being_validated_by_a_dead_dispatcher_is_validated_by_another(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        validations = Validations(world.context, spawn=lambda _: None)  # dies before it begins
        Dispatcher(world.context, validations, LazyExecutor()).tick()
        second = second_dispatcher(world)
        second.tick()
        assert world.job(job_id).status == "validating_files"
        world.clock.advance(seconds=LEASE_S + 1)
        second.tick()
        assert world.job(job_id).status == "running"


class OvertakenDatabase:
    """Another dispatcher takes everything over right before the n-th writing transaction."""

    def __init__(self, inner: Database, world: World, *, at: int) -> None:
        self._inner = inner
        self._world = world
        self.left = at

    def read(self) -> object:
        return self._inner.read()

    @contextmanager
    def write(self) -> Iterator[Session]:
        self.left -= 1
        if self.left == 0:
            self._world.dispatcher.give_back()
            second_dispatcher(self._world).tick()
        with self._inner.write() as session:
            yield session


@pytest.mark.parametrize("at", range(1, 6))
def test_a_dispatcher_that_lost_its_lease_writes_nothing(tmp_path: Path, at: int) -> None:
    """It finds out at its next write, whichever that is, and the job ends as if it had not been there."""
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.tick()
        overtaken = OvertakenDatabase(world.context.database, world, at=at)
        context = with_parts(world.context, database=overtaken)
        stale = Dispatcher(context, Validations(context, spawn=lambda work: work()), LazyExecutor())
        second = second_dispatcher(world)
        for _ in range(20):
            stale.tick()
            second.tick()
            world.clock.advance(seconds=0.2)
        assert overtaken.left <= 0
        assert world.job(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        assert world.messages(job_id).count("The job has successfully completed") == 1
        assert len(world.result_files()) == 2
        assert set(world.backend.requests) == {f"{job_id}-1"}


def test_a_run_woken_by_a_late_submission_is_stopped_again(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        job_id = world.submit()
        world.backend.is_away = True
        world.tick()  # validated
        world.backend.is_away = False

        is_lost_again = ["once"]

        class Slow(ScriptedBackend):
            """While our submission is on its way the lease is lost, the job cancelled and its run closed."""

            def submit(self, request: RunRequest) -> None:
                world.dispatcher.give_back()
                world.cancel(job_id)
                second_dispatcher(world).tick()
                super().submit(request)

            def stop(self, run_id: RunId) -> None:
                if is_lost_again:
                    raise BackendUnavailable(is_lost_again.pop())
                super().stop(run_id)

        slow = Slow(lambda _: [])
        world.restart(with_parts(world.context, backend=slow))
        world.tick()
        world.tick()
        assert slow.stopped == [f"{job_id}-1"]


def test_attempts_wait_longer_each_time(tmp_path: Path) -> None:
    assert [attempt_delay_s(lost) for lost in (1, 2, 3, 4, 9)] == [2.0, 8.0, 32.0, 60.0, 60.0]

    def lost_at_first(request: RunRequest) -> list[Action]:
        return [die()] if request.run_id.endswith("-1") else []

    with open_world(tmp_path, ScriptedBackend(lost_at_first)) as world:
        job_id = world.submit()
        world.tick(times=4)
        assert world.attempt(job_id) == 2
        assert f"{job_id}-2" not in world.backend.requests
        world.clock.advance(seconds=2)
        world.tick()
        assert f"{job_id}-2" in world.backend.requests


def test_jobs_beyond_the_running_quota_wait_in_the_queue(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [], gpus=9)) as world:
        set_quota(world, max_running_jobs=1)
        first, second = (world.submit(resources={"gpus": 1}) for _ in range(2))
        world.tick(times=3)
        assert [world.job(job_id).status for job_id in (first, second)] == ["running", "queued"]
        world.cancel(first)
        world.tick(times=3)
        assert world.job(second).status == "running"


def test_a_job_beyond_the_queued_quota_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        set_quota(world, max_queued_jobs=2)
        jobs = [world.submit(), world.submit()]
        with pytest.raises(QuotaExceeded, match=r"2 job\(s\) waiting and has as many; try again when one has started"):
            world.submit()
        world.tick(times=2)  # one starts
        assert world.job(world.submit(priority=3)).priority == 3
        assert [world.job(job_id).status for job_id in jobs] == ["running", "queued"]


def test_a_large_job_is_not_overtaken_by_smaller_ones_of_its_kind(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [], gpus=4)) as world:
        running = world.submit(resources={"gpus": 2})
        world.tick(times=2)
        large, small = (world.submit(resources={"gpus": gpus}) for gpus in (4, 1))
        world.tick(times=2)
        assert [world.job(job_id).status for job_id in (running, large, small)] == ["running", "queued", "queued"]
        world.cancel(running)
        world.tick(times=3)
        assert [world.job(job_id).status for job_id in (large, small)] == ["running", "queued"]


@pytest.mark.parametrize("act", [World.cancel, World.pause], ids=["cancelled", "paused"])
def test_a_job_that_its_user_takes_away_while_it_is_validated_is_nobodys(
    tmp_path: Path, act: Callable[[World, JobId], object]
) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        validations = Validations(world.context, spawn=lambda _: None)  # it takes its time
        Dispatcher(world.context, validations, LazyExecutor()).tick()
        assert owner_of(world, job_id) == "dispatcher-1"
        act(world, job_id)
        assert owner_of(world, job_id) is None


def test_a_resumed_job_waits_within_the_queued_quota_like_a_new_one(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        set_quota(world, max_queued_jobs=1)
        paused = world.submit()
        world.pause(paused)
        waiting = world.submit()
        with pytest.raises(QuotaExceeded, match=r"1 job\(s\) waiting and has as many"):
            world.resume(paused)
        assert world.job(paused).status == "paused"
        world.tick(times=2)  # the other one starts
        assert world.job(waiting).status == "running"
        assert world.resume(paused).status == "validating_files"
