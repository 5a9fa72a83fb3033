"""Jobs wait in our queue while the cluster has no room, also when it had some and a node of it is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from service.backends.backend import Capacity, RunRequest
from service.db.cluster import REMEMBERED
from tests.unit.service.dispatcher.scripted_backend import Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import whole_run
from tests.unit.service.dispatcher.test_many_dispatchers import set_quota
from tests.unit.service.dispatcher.world import World, open_world

pytestmark = pytest.mark.slow


class ShrinkingBackend(ScriptedBackend):
    def set_gpus(self, gpus: int) -> None:
        self._capacity = Capacity(self._capacity.cpus, gpus)


@contextmanager
def cluster_of(tmp_path: Path, gpus: int) -> Iterator[tuple[World, ShrinkingBackend]]:
    def first_never_ends(request: RunRequest) -> list[Action]:
        return [] if request.run_id.endswith("-1") else whole_run(request)

    backend = ShrinkingBackend(first_never_ends, gpus=gpus)
    with open_world(tmp_path, backend) as world:
        yield world, backend


def test_a_queued_job_waits_for_a_node_that_is_away(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, backend):
        holder = world.submit(resources={"gpus": 1})
        world.tick(times=2)
        backend.set_gpus(4)
        job_id = world.submit(resources={"gpus": 8})
        world.tick(times=3)
        assert world.job(job_id).status == "queued"
        told = "Waiting for room in the cluster: the job needs 8 GPU(s), and 3 of the cluster's 4 are free"
        assert world.messages(job_id).count(told) == 1
        backend.set_gpus(8)
        world.cancel(holder)
        world.tick(times=3)
        assert world.job(job_id).status == "running"


def test_a_job_that_the_cluster_never_had_room_for_fails_at_once(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, _):
        job_id = world.submit(resources={"gpus": 9})
        world.tick(times=2)
        error = world.job(job_id).error
        assert error is not None
        assert (world.job(job_id).status, error.code) == ("failed", "insufficient_resources")
        assert "the cluster has 8 in all" in error.message


def test_a_job_that_the_cluster_never_had_room_for_is_told_so_behind_others_that_wait(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, _):
        for _ in range(2):
            world.submit(resources={"gpus": 8})
        world.tick(times=2)
        job_id = world.submit(resources={"gpus": 9})
        world.tick()
        assert world.job(job_id).status == "failed"


def test_a_node_that_went_while_nothing_waited_is_waited_for(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, backend):
        backend.is_away = True
        world.tick()
        backend.is_away = False
        world.clock.advance(seconds=60)
        world.tick()
        backend.set_gpus(4)
        job_id = world.submit(resources={"gpus": 8})
        world.tick(times=3)
        assert world.job(job_id).status == "queued"


def test_a_run_longer_than_the_cluster_is_remembered_survives_the_loss_of_its_node(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, backend):
        job_id = world.submit(resources={"gpus": 8})
        world.tick(times=2)
        for _ in range(9):
            world.clock.advance(seconds=timedelta(days=1).total_seconds())
            world.tick()
        backend.set_gpus(4)
        backend.forget_all()
        world.tick(times=2)
        assert (world.job(job_id).status, world.attempt(job_id)) == ("running", 2)
        backend.set_gpus(8)
        world.clock.advance(seconds=60)
        assert world.tick_until_ended(job_id).status == "succeeded"


def test_a_node_that_does_not_come_back_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, backend):
        world.submit()
        world.tick(times=2)
        backend.set_gpus(4)
        job_id = world.submit(resources={"gpus": 8})
        world.tick(times=2)
        world.clock.advance(seconds=(REMEMBERED + timedelta(hours=1)).total_seconds())
        world.tick(times=2)
        assert world.job(job_id).status == "failed"


def test_the_next_attempts_of_runs_lost_with_a_node_go_into_the_cluster_as_it_has_room(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, backend):
        jobs = [world.submit(resources={"gpus": 4}) for _ in range(2)]
        world.tick(times=3)
        backend.set_gpus(4)
        backend.forget_all()
        world.tick(times=2)
        world.clock.advance(seconds=60)
        world.tick(times=2)
        assert [world.job(job_id).status for job_id in jobs] == ["running", "running"]
        assert [f"{job_id}-2" in backend.requests for job_id in jobs] == [True, False]
        told = "Waiting for room in the cluster: the job needs 4 GPU(s), and 0 of the cluster's 4 are free"
        assert told in world.messages(jobs[1])
        assert [world.tick_until_ended(job_id).status for job_id in jobs[:1]] == ["succeeded"]
        assert world.tick_until_ended(jobs[1]).status == "succeeded"
        assert [world.attempt(job_id) for job_id in jobs] == [2, 2]


def test_jobs_beyond_the_gpu_hours_of_a_month_wait_for_the_next_and_what_runs_goes_on(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 8) as (world, _):
        set_quota(world, max_gpu_hours_a_month=1)
        first = world.submit(resources={"gpus": 1})
        world.tick(times=2)
        second = world.submit(resources={"gpus": 1})
        third = world.submit(resources={"gpus": 0})
        world.clock.advance(seconds=3600)
        world.tick(times=3)
        assert [world.job(job_id).status for job_id in (first, second, third)] == ["running", "queued", "running"]
        told = (
            "Waiting for 2030-02-01 (UTC): the project has used up its 1 GPU-hours of this month; "
            "what runs already goes on to its end"
        )
        assert world.messages(second).count(told) == 1
        world.clock.advance(seconds=31 * 86_400)
        world.tick(times=2)
        # what runs still has used up the new month's by now, too; an administrator gives more
        assert world.job(second).status == "queued"
        set_quota(world, max_gpu_hours_a_month=10_000, gpu_hours_used_up_until=None)
        world.tick(times=2)
        assert world.job(second).status == "running"
