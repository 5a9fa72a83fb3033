"""A step's gradient against autograd on the plain formula, whatever the passes; evaluation against naive sums."""

from collections.abc import Sequence
from itertools import chain

import pytest
import torch

from schemas.fine_tuning import LossType
from tests.tiny_model import tiny_llama
from tests.tiny_runs import DPO, LORA
from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.coupled_step import accumulate_coupled_gradients
from trainers.dpo.evaluate import ReferenceStates, evaluate
from trainers.dpo.objective import Objective
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.reference import ReferenceTable, reference_log_probs
from trainers.dpo.scores import Layout
from trainers.dpo.step import accumulate_gradients
from trainers.metrics import from_vector
from trainers.models.lora import Policy, add_lora
from trainers.stop_signal import StopSignal

CPU = torch.device("cpu")
ALONE = Workers(0, 1, CPU)
NEVER = StopSignal()
PAIRS = [
    PairTokens((1, 40, 41), (50, 51, 2), (60, 2), line=1, row_id=None),
    PairTokens((1, 42), (52, 2), (61, 62, 63, 2), line=2, row_id=None),
    PairTokens((1, 43, 44, 45, 46), (53, 54, 55, 56, 2), (64, 2), line=3, row_id=None),
]


def moved_policy() -> Policy:
    """A policy that is not its reference any more."""
    policy = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def log_prob(policy: Policy, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    tokens = torch.tensor([prompt + completion])
    log_probs = policy.model(input_ids=tokens).logits[0].log_softmax(-1)
    return torch.stack([log_probs[len(prompt) + place - 1, token] for place, token in enumerate(completion)]).sum()


def naive_pair(policy: Policy, pair: PairTokens) -> tuple[torch.Tensor, torch.Tensor]:
    """The reward of both sides."""
    rewards = []
    for completion in (pair.chosen, pair.rejected):
        with torch.no_grad(), policy.model.disable_adapter():
            reference = log_prob(policy, pair.prompt, completion)
        rewards.append(DPO.beta * (log_prob(policy, pair.prompt, completion) - reference))
    return rewards[0], rewards[1]


def layout(name: str, policy: Policy) -> Layout:
    return PackedLayout(policy, CPU, longest_row=24) if name == "packed" else PaddedLayout(policy, CPU)


@pytest.mark.parametrize("name", ["padded", "packed"])
@pytest.mark.parametrize(
    "passes", [[[0, 1, 2]], [[2], [0, 1]], [[0], [1], [2]]], ids=["1 pass", "2 passes", "3 passes"]
)
def test_the_gradient_is_that_of_the_mean_loss_over_the_steps_pairs(name: str, passes: list[list[int]]) -> None:
    policy = moved_policy()
    rewards = [naive_pair(policy, pair) for pair in PAIRS]
    loss = torch.stack([-torch.sigmoid(chosen - rejected).log() for chosen, rejected in rewards]).mean()
    expected = torch.autograd.grad(loss, policy.parameters())

    objective = Objective(policy, layout(name, policy), DPO, CPU)
    vector = accumulate_gradients(objective, passes, PAIRS, ReferenceTable(3), step=range(3))
    for parameter, gradient in zip(policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    sums = from_vector(vector.tolist())
    assert sums.mean_loss == pytest.approx(loss.item(), rel=1e-5)
    assert sums.rewards_chosen == pytest.approx(sum(chosen.item() for chosen, _ in rewards), rel=1e-4)
    assert sums.ranked_right == sum(chosen.item() > rejected.item() for chosen, rejected in rewards)
    assert sums.trained_tokens == (6 + 5) + (4 + 6) + (10 + 7)


@pytest.mark.parametrize("loss_type", ["sigmoid", "aot"])
def test_what_is_computed_of_the_reference_leaves_the_device_once_a_step(
    loss_type: LossType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[int]] = []
    keep = ReferenceTable.keep

    def counting(table: ReferenceTable, indices: Sequence[int], log_probs_B2: torch.Tensor) -> None:
        kept.append(list(indices))
        keep(table, indices, log_probs_B2)

    monkeypatch.setattr(ReferenceTable, "keep", counting)
    policy, reference, passes = moved_policy(), ReferenceTable(3), [[2], [0], [1]]
    dpo = DPO.model_copy(update={"loss_type": loss_type})
    objective = Objective(policy, layout("packed", policy), dpo, CPU)
    for _ in range(2):
        if loss_type == "sigmoid":
            accumulate_gradients(objective, passes, PAIRS, reference, step=range(3))
        else:
            accumulate_coupled_gradients(objective, passes, PAIRS, reference, step=range(3), workers=ALONE)
    assert kept == [[2, 0, 1]]
    expected = reference_log_probs(policy, objective.layout, PAIRS, None)
    torch.testing.assert_close(reference.log_probs_D2, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["padded", "packed"])
def test_evaluation_sums_the_exact_divergence_over_both_sides(name: str) -> None:
    policy = moved_policy()
    objective = Objective(policy, layout(name, policy), DPO, CPU)
    sums = evaluate(objective, PAIRS, ALONE, ReferenceStates(), token_budget=12, stop=NEVER)
    divergence, positions = 0.0, 0
    for pair, completion in chain.from_iterable([(pair, pair.chosen), (pair, pair.rejected)] for pair in PAIRS):
        tokens = torch.tensor([pair.prompt + completion])
        with torch.no_grad():
            ours = policy.model(input_ids=tokens).logits[0].log_softmax(-1)
            with policy.model.disable_adapter():
                theirs = policy.model(input_ids=tokens).logits[0].log_softmax(-1)
        for place in range(len(pair.prompt) - 1, len(pair.prompt) + len(completion) - 1):
            divergence += (ours[place].exp() * (ours[place] - theirs[place])).sum().item()
            positions += 1
    assert sums.kl_positions == positions
    assert sums.kl == pytest.approx(divergence, rel=1e-4)
    with torch.no_grad():
        margins = [chosen.item() - rejected.item() for chosen, rejected in (naive_pair(policy, p) for p in PAIRS)]
    assert sums.rewards_chosen - sums.rewards_rejected == pytest.approx(sum(margins), rel=1e-4)


def test_a_policy_that_has_not_moved_has_no_divergence_and_no_margin() -> None:
    policy = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=0)
    objective = Objective(policy, PackedLayout(policy, CPU, longest_row=24), DPO, CPU)
    sums = evaluate(objective, PAIRS, ALONE, ReferenceStates(), token_budget=100, stop=NEVER)
    assert sums.kl == 0
    assert sums.rewards_chosen == sums.rewards_rejected == 0
