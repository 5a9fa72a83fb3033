"""How often a run's folder is looked into."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from schemas.ids import RunId
from service.dispatcher.polls import LONGEST_S, RunPolls
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import step_event, whole_run, write_chunk
from tests.unit.service.dispatcher.world import START, World, open_world, with_parts

pytestmark = pytest.mark.slow

RUN = RunId("ftjob-1-1")


def looks_within(
    polls: RunPolls, *, seconds: int, news_at: tuple[int, ...] = (), jump_at: int | None = None, jump_s: int = 0
) -> list[float]:
    """When it was looked at, at ticks of a second; the clock tells another time from `jump_at` on."""
    seen = []
    for second in range(seconds):
        is_off = jump_at is not None and second >= jump_at
        now = START + timedelta(seconds=second + (jump_s if is_off else 0))
        if polls.is_due(RUN, now=now):
            seen.append(second)
            polls.note_look(RUN, has_news=second in news_at, now=now)
    return seen


def test_a_quiet_run_is_looked_at_ever_more_seldom_up_to_a_limit() -> None:
    seen = looks_within(RunPolls(2.0), seconds=3600)
    gaps = [after - before for before, after in pairwise(seen)]
    assert gaps[:3] == [2, 2, 2]
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_S
    assert all(gap <= max(2, 0.1 * second + 1) for second, gap in zip(seen, gaps, strict=False))


def test_news_bring_the_short_interval_back() -> None:
    seen = looks_within(RunPolls(2.0), seconds=420, news_at=tuple(range(300, 320)))
    after_news = [second for second in seen if second >= 300]
    assert after_news[1] - after_news[0] == 2


@pytest.mark.parametrize("jump_s", [3600, -3600], ids=["ahead", "back"])
def test_a_clock_that_jumps_an_hour_neither_holds_up_a_look_nor_makes_a_quiet_run_costly(jump_s: int) -> None:
    steady = looks_within(RunPolls(2.0), seconds=900)
    seen = looks_within(RunPolls(2.0), seconds=900, jump_at=200, jump_s=jump_s)
    assert max(after - before for before, after in pairwise(seen)) <= LONGEST_S
    assert len(seen) <= 1.5 * len(steady)


@pytest.mark.parametrize("jump_s", [3600, -3600], ids=["ahead", "back"])
def test_news_after_a_jump_of_the_clock_bring_the_short_interval_back(jump_s: int) -> None:
    seen = looks_within(RunPolls(2.0), seconds=300, news_at=tuple(range(220, 240)), jump_at=200, jump_s=jump_s)
    after_news = [second for second in seen if second >= 220]
    assert after_news[0] - 220 <= LONGEST_S
    assert after_news[1] - after_news[0] == 2


class CountingStore:
    def __init__(self, world: World) -> None:
        self._inner = world.context.store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        self.calls[name] += 1
        return getattr(self._inner, name)


def test_a_run_on_a_bucket_costs_few_requests_and_its_end_is_seen_at_once(tmp_path: Path) -> None:
    with open_world(tmp_path, ScriptedBackend(lambda _: [])) as world:
        job_id = world.submit()
        world.tick(times=2)
        store = CountingStore(world)
        world.restart(with_parts(world.context, store=store, polls=RunPolls(2.0)))
        world.tick(times=300)  # a minute
        assert 10 <= store.calls["read"] <= 60
        request = world.backend.requests[RunId(f"{job_id}-1")]
        write_chunk(1, step_event(1))(request)
        world.tick(times=32)  # after a minute of quiet, six seconds at the most
        assert world.steps(job_id) == [1]
        for act in whole_run(request)[1:]:
            act(request)
        world.backend.end(request.run_id)
        world.tick()
        assert world.job(job_id).status == "succeeded"
