"""Evaluations after the first need the policy's pass alone, and tell the same numbers to the last bit."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.tiny_runs import DPO
from tests.unit.trainers.dpo.test_step import ALONE, CPU, NEVER, PAIRS, layout, moved_policy
from trainers.dpo.evaluate import ReferenceStates, evaluate
from trainers.dpo.objective import Objective
from trainers.models.lora import Policy


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry each time that the policy becomes its reference."""
    switched: list[None] = []
    as_reference = Policy.as_reference

    @contextmanager
    def counting(policy: Policy) -> Iterator[None]:
        switched.append(None)
        with as_reference(policy):
            yield

    monkeypatch.setattr(Policy, "as_reference", counting)
    return switched


@pytest.mark.parametrize(
    ("name", "room_bytes", "reference_passes"),
    [
        pytest.param("packed", 2**20, 2, id="kept"),
        pytest.param("packed", 2**10, 3, id="room for one of two passes"),
        pytest.param("packed", 0, 4, id="no room"),
        pytest.param("padded", 2**20, 4, id="padded: logits are not kept"),
    ],
)
def test_what_is_kept_changes_no_number(
    switches: list[None], name: str, room_bytes: int, reference_passes: int
) -> None:
    policy = moved_policy()
    objective = Objective(policy, layout(name, policy), DPO, CPU)
    kept = ReferenceStates(room_bytes=room_bytes)
    evaluate(objective, PAIRS, ALONE, kept, token_budget=20, stop=NEVER)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    again = evaluate(objective, PAIRS, ALONE, kept, token_budget=20, stop=NEVER)
    assert len(switches) == reference_passes
    assert again == evaluate(objective, PAIRS, ALONE, ReferenceStates(room_bytes=0), token_budget=20, stop=NEVER)
    assert again.kl > 0


def test_what_a_larger_budget_kept_makes_room_for_what_a_smaller_one_does(switches: list[None]) -> None:
    policy = moved_policy()
    objective = Objective(policy, layout("packed", policy), DPO, CPU)
    positions = sum(len(pair.chosen) + len(pair.rejected) for pair in PAIRS)
    kept = ReferenceStates(room_bytes=positions * policy.causal_lm().config.hidden_size * 4)
    for token_budget in (20, 12):
        for _ in range(2):
            evaluate(objective, PAIRS, ALONE, kept, token_budget=token_budget, stop=NEVER)
    assert len(switches) == 2 + 3


def test_other_passes_over_the_same_pairs_are_not_mistaken_for_kept_ones() -> None:
    policy = moved_policy()
    objective = Objective(policy, layout("packed", policy), DPO, CPU)
    kept = ReferenceStates()
    for token_budget in (20, 12, 1):
        sums = evaluate(objective, PAIRS, ALONE, kept, token_budget=token_budget, stop=NEVER)
        assert sums == evaluate(objective, PAIRS, ALONE, ReferenceStates(), token_budget=token_budget, stop=NEVER)
