"""Runs that end without an outcome, clusters that go away, cancels that race: the job still ends once, rightly."""

import errno
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.run_layout import SPEC
from schemas.run_record import RunEvent
from schemas.run_spec import RunSpec
from service.backends.backend import RunRequest
from service.dispatcher.backoff import LONGEST_DELAY_S, MAX_FAILURES, Backoff
from service.dispatcher.context import DispatchContext
from service.storage.object_store import ObjectStore
from tests.unit.service.dispatcher.scripted_backend import Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import (
    checkpoint_event,
    die,
    message_event,
    sft_event,
    step_event,
    whole_run,
    write_chunk,
    write_outcome,
)
from tests.unit.service.dispatcher.world import ENTRY, MODEL, START, open_world, with_parts

pytestmark = pytest.mark.slow


def lost_at_first(request: RunRequest) -> list[Action]:
    """The first attempt dies after step 4 with a checkpoint at 2; the second tells 3 and 4 again."""
    if request.run_id.endswith("-1"):
        first = [message_event("started", "Training on 4 pairs"), *map(step_event, (1, 2, 3, 4))]
        return [write_chunk(1, *first), die()]
    again = [message_event("started", "Training on 4 pairs"), *map(step_event, (3, 4, 5, 6))]
    return [write_chunk(1, *again), write_outcome()]


def test_the_next_attempt_goes_on_and_no_step_is_told_twice(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lost_at_first)) as world:
        job_id = world.submit()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        assert sum(message == "Training on 4 pairs" for message in world.messages(job_id)) == 1
        lost = (
            f"Run {job_id}-1 was lost (exit code 137); attempt 2 of 3 goes on from the last checkpoint; killed, most "
            "likely out of memory: lower batch_size or max_length, or give its machine more memory"
        )
        assert lost in world.messages(job_id)


def test_losses_after_each_of_which_the_job_gets_further_do_not_add_up(tmp_path: Path) -> None:
    """No checkpoint is needed for that: each attempt tells the steps before it again."""

    def script(request: RunRequest) -> list[Action]:
        furthest = int(request.run_id.rpartition("-")[2])
        told = [step_event(step) for step in range(1, furthest + 1)]
        return [write_chunk(1, *told), write_outcome() if furthest == 6 else die()]

    with open_world(tmp_path, ScriptedBackend(script)) as world:
        job_id = world.submit()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("told", "attempts"),
    [
        ([[], [], []], 3),
        ([[step_event(1), step_event(2)], [step_event(1)], [step_event(1), step_event(2)]], 3),
        ([[], [], [step_event(1)], [step_event(1)], []], 5),
        ([[sft_event(1)], [sft_event(1)], [sft_event(2)], [], [sft_event(1)]], 5),
    ],
    ids=["before the first step", "at the same step", "later", "while the reference is estimated"],
)
def test_a_job_that_gets_no_further_fails_by_its_losses(
    tmp_path: Path, told: list[list[RunEvent]], attempts: int
) -> None:
    def script(request: RunRequest) -> list[Action]:
        attempt = int(request.run_id.rpartition("-")[2])
        return [write_chunk(1, *told[attempt - 1]), die()]

    with open_world(tmp_path, ScriptedBackend(script)) as world:
        job_id = world.submit()
        job = world.tick_until_ended(job_id, limit=500)
        assert job.error is not None
        assert (job.error.code, world.attempt(job_id)) == ("run_lost", attempts)


def test_the_next_attempt_is_told_where_the_earlier_ones_lie(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [die()])) as world:
        job_id = world.submit()
        world.tick_until_ended(job_id)
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{job_id}/{job_id}-3/{SPEC}"))
        assert [Path(folder).name for folder in spec.resume_from] == [f"{job_id}-2", f"{job_id}-1"]


def test_the_next_attempt_asks_for_what_it_is_counted_with_whatever_the_registry_says_since(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lost_at_first, gpus=4)) as world:
        job_id = world.submit()
        while world.attempt(job_id) < 2:
            world.tick()
        larger = ENTRY.model_copy(update={"gpus": 4})
        world.restart(with_parts(world.context, registry={MODEL: larger}))
        assert world.tick_until_ended(job_id).status == "succeeded"
        request = world.backend.requests[f"{job_id}-2"]
        assert (request.workers, request.gpus_per_worker) == (1, 0)


def test_a_store_whose_mount_has_gone_is_waited_for(tmp_path: Path) -> None:
    objects, mounted = tmp_path / "objects", tmp_path / "elsewhere"
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        objects.rename(mounted)
        objects.mkdir()
        for _ in range(2 * MAX_FAILURES):
            world.tick()
            world.clock.advance(seconds=LONGEST_DELAY_S)
        assert world.job(job_id).status == "validating_files"
        objects.rmdir()
        mounted.rename(objects)
        assert world.tick_until_ended(job_id).status == "succeeded"


def test_every_attempt_takes_the_jobs_first_day_for_today(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [die()])) as world:
        job_id = world.submit()
        created = world.job(job_id).created_at
        world.tick_until_ended(job_id)
        for attempt in (1, 2, 3):
            stored = world.context.store.read(f"runs/{job_id}/{job_id}-{attempt}/{SPEC}")
            assert RunSpec.model_validate_json(stored).created_at == created


def test_what_a_cut_off_node_tells_after_its_run_was_given_up_is_not_missed_by_the_next_attempt(tmp_path: Path) -> None:
    """It tells step 3 and leaves a checkpoint there, from which the second attempt goes on."""
    first: list[RunRequest] = []

    def tell_behind(_request: RunRequest) -> None:
        write_chunk(2, step_event(3), checkpoint_event(3))(first[0])

    def script(request: RunRequest) -> list[Action]:
        if request.run_id.endswith("-1"):
            first.append(request)
            return [write_chunk(1, step_event(1), step_event(2)), die("node died")]
        resumed = message_event(f"resumed:{request.run_id}:3", "Resumed after step 3 of 6")
        own = [write_chunk(1, message_event("started", "Training on 4 pairs"))]
        return [*own, tell_behind, write_chunk(2, resumed, *map(step_event, (4, 5, 6))), write_outcome()]

    with open_world(tmp_path, ScriptedBackend(script)) as world:
        job_id = world.submit()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        assert world.checkpoint_steps(job_id) == [3]


def test_a_cluster_that_forgot_the_run_means_a_next_attempt(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda request: [] if request.run_id.endswith("-1") else whole_run(request))
    with open_world(tmp_path, backend) as world:
        job_id = world.submit()
        world.tick(times=3)
        backend.forget_all()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.attempt(job_id) == 2


def test_a_forgotten_run_that_had_finished_is_published_all_the_same(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        job_id = world.submit()
        world.tick(times=2)
        for act in whole_run(world.backend.requests[next(iter(world.backend.requests))]):
            act(world.backend.requests[next(iter(world.backend.requests))])
        world.backend.forget_all()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.attempt(job_id) == 1
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]


def test_while_the_backend_is_away_nothing_is_concluded(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.tick(times=2)
        world.backend.is_away = True
        world.tick(times=50)
        assert world.job(job_id).status == "running"
        world.backend.is_away = False
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.attempt(job_id) == 1


def test_files_are_validated_while_the_backend_is_away(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        world.backend.is_away = True
        job_id = world.submit()
        world.tick()
        assert world.job(job_id).status == "queued"


def test_a_cancelled_job_has_its_run_stopped_and_takes_nothing_more(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda _: [write_chunk(1, step_event(1)), *[lambda _: None] * 99])
    with open_world(tmp_path, backend) as world:
        job_id = world.submit()
        world.tick(times=3)
        world.cancel(job_id)
        write_chunk(2, step_event(2))(next(iter(backend.requests.values())))
        assert world.tick_until_ended(job_id).status == "cancelled"
        assert backend.stopped == [f"{job_id}-1"]
        assert world.steps(job_id) == [1]
        assert world.messages(job_id)[-1] == "The job has been cancelled"


def test_a_job_cancelled_before_its_run_was_submitted_is_never_submitted(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        world.tick()  # validated, claimed, launched in one: take the launch back to the moment before it
        world.backend.is_away = True
        second = world.submit()
        world.tick()
        world.cancel(second)
        world.cancel(job_id)
        world.backend.is_away = False
        world.tick_until_ended(second)
        assert f"{second}-1" not in world.backend.requests


def test_a_service_that_stops_its_own_runs_costs_their_jobs_no_attempt(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda request: whole_run(request) if request.run_id.endswith("-5") else [])
    with open_world(tmp_path, backend, max_attempts=1) as world:
        job_id = world.submit()
        for _ in range(4):
            world.tick(times=2)
            world.dispatcher.interrupt_runs()
            backend.forget_all()
            world.restart()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.attempt(job_id) == 5


def test_a_run_that_finished_while_the_service_stopped_is_published_at_the_next_start(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        job_id = world.submit()
        world.tick(times=2)
        request = next(iter(world.backend.requests.values()))
        for act in whole_run(request):
            act(request)
        world.dispatcher.interrupt_runs()
        world.backend.forget_all()
        world.restart()
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.attempt(job_id) == 1


def test_a_job_whose_step_raises_waits_longer_each_time_and_fails_at_last(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        bad, good = world.submit(), world.submit()
        world.tick()
        raised = 0

        class Broken(ScriptedBackend):
            def status(self, run_id):  # type: ignore[no-untyped-def]  # the protocol's
                nonlocal raised
                raised += 1
                raise ZeroDivisionError("a bug")

        world.restart(with_backend(world.context, Broken(whole_run)))
        for _ in range(MAX_FAILURES):
            world.tick(times=3)
            world.clock.advance(seconds=61)
        job = world.job(bad)
        assert job.error is not None
        assert job.error.code == "internal_error"
        assert "(ZeroDivisionError). It is not your data" in job.error.message
        assert "a bug" not in job.error.message
        assert raised < 2 * MAX_FAILURES
        world.restart()
        world.tick(times=3)
        assert world.job(good).status == "running"


def with_backend(context: DispatchContext, backend: ScriptedBackend) -> DispatchContext:
    return with_parts(context, backend=backend)


def test_a_clock_that_is_set_back_holds_up_neither_a_next_attempt_nor_a_next_try(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lost_at_first)) as world:
        job_id = world.submit()
        world.tick(times=3)
        assert world.attempt(job_id) == 2
        world.clock.advance(seconds=-3600)
        world.tick()
        assert f"{job_id}-2" in world.backend.requests
        backoff = Backoff()
        backoff.note_failure(job_id, now=world.clock())
        world.clock.advance(seconds=-3600)
        assert backoff.may_try(job_id, now=world.clock())


def test_an_outage_of_the_store_does_not_count_among_the_failures_that_end_a_job(tmp_path: Path) -> None:
    class Faulty:
        """Away for a while, then once the cause of a mistake of ours, then well."""

        def __init__(self, inner: ObjectStore) -> None:
            self._inner = inner
            self.reads = 0

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def read(self, key: str) -> bytes:
            self.reads += 1
            if self.reads <= 2 * MAX_FAILURES:
                raise OSError(errno.EIO, "the store is away")
            if self.reads == 2 * MAX_FAILURES + 1:
                raise ZeroDivisionError("a bug")
            return self._inner.read(key)

    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        job_id = world.submit()
        store = Faulty(world.context.store)
        world.restart(with_parts(world.context, store=store))
        for _ in range(2 * MAX_FAILURES + 2):
            world.tick(times=3)
            world.clock.advance(seconds=61)
        assert store.reads > 2 * MAX_FAILURES + 1
        assert world.tick_until_ended(job_id).status == "succeeded"
        assert world.attempt(job_id) == 1


def test_a_days_outage_has_a_next_try() -> None:
    backoff = Backoff()
    for _ in range(2000):
        assert backoff.note_failure("ftjob-1", now=START, is_outage=True) == 0
    assert backoff.may_try("ftjob-1", now=START + timedelta(seconds=LONGEST_DELAY_S))
