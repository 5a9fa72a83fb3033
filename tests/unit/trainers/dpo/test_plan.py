"""The order of pairs, their shards and passes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.batch import pad_pairs
from trainers.dpo.plan import StepPlan, longest_pass, micro_batches, shard

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def pairs_of(lengths: list[int]) -> list[PairTokens]:
    return [PairTokens((1,) * length, (2,), (3,), line=number, row_id=None) for number, length in enumerate(lengths)]


@settings(deadline=None)
@given(pairs=st.integers(1, 40), batch_size=st.integers(1, 12), n_epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_epoch_meets_every_pair_once(pairs: int, batch_size: int, n_epochs: int, seed: int) -> None:
    plan = StepPlan(pairs, batch_size, n_epochs, seed)
    for epoch in range(n_epochs):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        met = [index for step in steps for index in plan.batch(step)]
        assert sorted(met) == list(range(pairs))
        assert [plan.ends_epoch(step) for step in steps] == [False] * (len(steps) - 1) + [True]
    assert plan.total_steps == plan.steps_per_epoch * n_epochs


def test_the_order_follows_from_the_seed_and_changes_with_the_epoch() -> None:
    plan = StepPlan(50, 50, 2, seed=1)
    assert plan.batch(1) == StepPlan(50, 50, 2, seed=1).batch(1)
    assert plan.batch(1) != plan.batch(2)
    assert plan.batch(1) != StepPlan(50, 50, 2, seed=2).batch(1)


def test_an_epochs_order_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    randperm = torch.randperm

    def counting(pairs: int, **options: Any) -> torch.Tensor:
        drawn.append(pairs)
        return randperm(pairs, **options)

    monkeypatch.setattr(torch, "randperm", counting)
    plan = StepPlan(1_009, 8, 2, seed=5)
    for step in range(1, plan.total_steps + 1):
        plan.batch(step)
    assert drawn == [1_009, 1_009]


@settings(deadline=None)
@given(lengths=LENGTHS, world_size=st.integers(1, 5))
def test_shards_share_out_every_pair_and_balance_tokens(lengths: list[int], world_size: int) -> None:
    pairs = pairs_of(lengths)
    shards = [shard(range(len(pairs)), pairs, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(index for part in shards for index in part) == list(range(len(pairs)))
    loads = [sum(pairs[index].packed_length for index in part) for part in shards]
    assert max(loads) - min(loads) <= max(pair.packed_length for pair in pairs)


@settings(deadline=None)
@given(lengths=LENGTHS, token_budget=st.integers(1, 100))
def test_passes_keep_to_the_budget_unless_one_pair_is_longer(lengths: list[int], token_budget: int) -> None:
    pairs = pairs_of(lengths)
    passes = micro_batches(range(len(pairs)), pairs, token_budget=token_budget, pads=False)
    assert [index for part in passes for index in part] == list(range(len(pairs)))
    assert all(len(part) == 1 or sum(pairs[i].packed_length for i in part) <= token_budget for part in passes)


@settings(deadline=None)
@given(lengths=LENGTHS, token_budget=st.integers(1, 300))
def test_padded_passes_keep_to_the_budget_with_all_that_is_padded(lengths: list[int], token_budget: int) -> None:
    pairs = pairs_of(lengths)
    passes = micro_batches(range(len(pairs)), pairs, token_budget=token_budget, pads=True)
    assert [index for part in passes for index in part] == list(range(len(pairs)))
    for part in passes:
        batch = pad_pairs([pairs[index] for index in part])
        sides = [batch.chosen.token_ids_BT, batch.rejected.token_ids_BT]
        assert len(part) == 1 or all(side.numel() <= token_budget for side in sides)


def test_a_long_pair_is_padded_with_no_short_one() -> None:
    pairs = pairs_of([1_000] + [30] * 31)
    passes = micro_batches(range(32), pairs, token_budget=2_000, pads=True)
    assert [len(part) for part in passes] == [1, 31]
    assert longest_pass(pairs, pads=True) == 1_001
    assert longest_pass(pairs, pads=False) == 1_002


@pytest.mark.parametrize("pads", [False, True])
def test_no_pair_means_no_pass(pads: bool) -> None:
    assert micro_batches([], [], token_budget=8, pads=pads) == []
