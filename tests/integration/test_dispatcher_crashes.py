"""Kill the dispatcher before and after every call it makes to the world, once each; start another; the job ends right.

A crash is a BaseException, which no handler of the dispatcher catches, out of a wrapper around store, backend or
database. The cluster goes on, as a cluster does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from schemas.ids import JobId
from service.backends.backend import RunRequest, RunStatus
from service.db.engine import Database
from tests.unit.service.dispatcher.scripted_backend import STOPPED, Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import step_event, whole_run, write_chunk, write_outcome
from tests.unit.service.dispatcher.test_lost_runs import lost_at_first
from tests.unit.service.dispatcher.test_pauses import long_at_first, stop_after_step_3
from tests.unit.service.dispatcher.world import World, open_world, watch_only, with_parts


class Crash(BaseException):
    """The process is gone."""


class Fuse:
    """Blows at the n-th time it is passed, and never again."""

    def __init__(self, blows_at: int) -> None:
        self._blows_at = blows_at
        self.passed = 0

    def pass_through(self) -> None:
        self.passed += 1
        if self.passed == self._blows_at:
            raise Crash


class Fused:
    """Any object, with the fuse before and after each of its calls."""

    def __init__(self, inner: object, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> object:
        method = getattr(self._inner, name)

        def call(*arguments: object, **named: object) -> object:
            self._fuse.pass_through()
            result = method(*arguments, **named)
            self._fuse.pass_through()
            return result

        return call


class FusedDatabase:
    """A crash inside a transaction, at its end before the commit, and right after the commit."""

    def __init__(self, inner: Database, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def read(self) -> object:
        return self._inner.read()

    @contextmanager
    def write(self) -> Iterator[Session]:
        with self._inner.write() as session:
            yield session
            self._fuse.pass_through()
        self._fuse.pass_through()


def run_with_crash(world: World, job_id: JobId, fuse: Fuse, user: Callable[[World, JobId], None] = watch_only) -> bool:
    """True when the fuse blew before the job had ended."""
    context = world.context
    world.restart(
        with_parts(
            context,
            store=Fused(context.store, fuse),
            backend=Fused(context.backend, fuse),
            database=FusedDatabase(context.database, fuse),
        )
    )
    try:
        world.tick_until_ended(job_id, user=user)
    except Crash:
        return True
    finally:
        world.restart()
    return False


@pytest.mark.parametrize(
    ("script", "attempts", "kind"),
    [(whole_run, 1, "sqlite"), (lost_at_first, 2, "sqlite"), (lost_at_first, 2, "postgresql")],
    ids=["a smooth run", "a run lost once", "a run lost once, on PostgreSQL"],
)
def test_a_crash_at_any_point_changes_nothing_that_is_seen(
    tmp_path: Path, script: object, attempts: int, kind: str, request: pytest.FixtureRequest
) -> None:
    blows_at, crashed = 0, True
    while crashed:
        blows_at += 1
        folder = tmp_path / str(blows_at)
        folder.mkdir()
        url = request.getfixturevalue("postgres").new_url() if kind == "postgresql" else None
        with open_world(folder, ScriptedBackend(script), database_url=url) as world:  # type: ignore[arg-type]
            job_id = world.submit()
            crashed = run_with_crash(world, job_id, Fuse(blows_at))
            assert world.tick_until_ended(job_id).status == "succeeded"
            assert_seen_once(world, job_id, attempts)
    assert blows_at > 25, "the fuse must have been at every call"


def paused_by_its_user(world: World, job_id: JobId) -> None:
    """Pause at step 2, resume once the job is seen paused, its run stopped or not."""
    has_been_paused = "The job has been paused" in world.messages(job_id)
    if world.job(job_id).status == "running" and 2 in world.steps(job_id) and not has_been_paused:
        world.pause(job_id)
    elif world.job(job_id).status == "paused":
        world.resume(job_id)


def paused_by_its_guard(world: World, job_id: JobId) -> None:
    if world.job(job_id).status == "paused":
        world.resume(job_id)


def guarded(request: RunRequest) -> list[Action]:
    if not request.run_id.endswith("-1"):
        return long_at_first(request)
    return [write_chunk(1, *map(step_event, (1, 2))), write_chunk(2, step_event(3)), write_outcome(is_paused=True)]


@pytest.mark.parametrize(
    ("script", "user"),
    [(long_at_first, paused_by_its_user), (guarded, paused_by_its_guard)],
    ids=["by its user", "by its guard"],
)
def test_a_crash_at_any_point_of_a_pause_loses_no_step(
    tmp_path: Path, script: Callable[[RunRequest], list[Action]], user: Callable[[World, JobId], None]
) -> None:
    blows_at, crashed = 0, True
    while crashed:
        blows_at += 1
        folder = tmp_path / str(blows_at)
        folder.mkdir()
        with open_world(folder, ScriptedBackend(script, on_stop=stop_after_step_3), max_attempts=1) as world:
            job_id = world.submit()
            crashed = run_with_crash(world, job_id, Fuse(blows_at), user)
            assert world.tick_until_ended(job_id, user=user).status == "succeeded"
            assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
            assert (world.attempt(job_id), len(world.result_files())) == (2, 2)
            told = [message for message in world.messages(job_id) if "The job has been" in message]
            assert told == ["The job has been paused", "The job has been resumed"]
    assert blows_at > 25, "the fuse must have been at every call"


class WhilePreempted(Fuse):
    """Counts only from when the second of two jobs on one GPU comes, of higher priority, until it runs."""

    def __init__(self, blows_at: int) -> None:
        super().__init__(blows_at)
        self.high: JobId | None = None
        self._is_armed = False

    def pass_through(self) -> None:
        if self._is_armed:
            super().pass_through()

    def watch(self, world: World, low: JobId) -> None:
        if self.high is None and 2 in world.steps(low):
            self.high = world.submit(resources={"gpus": 1}, priority=1)
        self._is_armed = self.high is not None and world.job(self.high).status in ("validating_files", "queued")

    def script(self, request: RunRequest) -> list[Action]:
        if request.run_id != f"{self.high}-1":
            return long_at_first(request)
        return [write_chunk(1, *map(step_event, range(1, 7))), write_outcome()]

    def stop_at_step_3(self, _request: RunRequest) -> list[Action]:
        def tell_and_end(request: RunRequest) -> RunStatus:
            write_chunk(2, step_event(3))(request)
            return STOPPED

        return [tell_and_end]


def test_a_crash_at_any_point_of_a_preemption_loses_no_step(tmp_path: Path) -> None:
    blows_at, crashed = 0, True
    while crashed:
        blows_at += 1
        folder = tmp_path / str(blows_at)
        folder.mkdir()
        fuse = WhilePreempted(blows_at)
        backend = ScriptedBackend(fuse.script, on_stop=fuse.stop_at_step_3, gpus=1)
        with open_world(folder, backend, max_attempts=1) as world:
            low = world.submit(resources={"gpus": 1})
            crashed = run_with_crash(world, low, fuse, fuse.watch)
            assert world.tick_until_ended(low, user=fuse.watch).status == "succeeded"
            assert fuse.high is not None
            assert world.job(fuse.high).status == "succeeded"
            assert [world.steps(job_id) for job_id in (low, fuse.high)] == [[1, 2, 3, 4, 5, 6]] * 2
            assert set(backend.requests) == {f"{low}-1", f"{fuse.high}-1", f"{low}-2"}
            assert sum("makes room for" in message for message in world.messages(low)) == 1
            assert len(world.result_files()) == 4
    assert blows_at > 20, "the fuse must have been at every call"


def assert_seen_once(world: World, job_id: JobId, attempts: int) -> None:
    events = world.events(job_id)  # asserts that their sequence has no gap
    assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
    assert len({event.message for event in events}) == len(events)
    assert events[-1].message == "The job has successfully completed"
    assert world.attempt(job_id) == attempts
    assert set(world.backend.requests) == {f"{job_id}-{attempt}" for attempt in range(1, attempts + 1)}
    assert len(world.result_files()) == 2
    assert len(set(world.model_names())) == len(world.model_names()) == 1 + len(world.checkpoint_steps(job_id))
