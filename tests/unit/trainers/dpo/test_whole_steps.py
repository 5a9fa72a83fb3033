"""How a step is cut into passes and shards never changes its gradient or its numbers, whatever the loss."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from schemas.run_spec import DpoParameters
from tests.tiny_model import tiny_llama
from tests.tiny_runs import DPO, LORA
from tests.unit.trainers.dpo.test_step import NEVER
from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.coupled_step import accumulate_coupled_gradients, stack_scores, step_loss
from trainers.dpo.evaluate import ReferenceStates, evaluate
from trainers.dpo.loss import COUPLED, LOSSES
from trainers.dpo.objective import Objective
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.reference import ReferenceTable, reference_log_probs
from trainers.dpo.scores import PairScores
from trainers.dpo.step import accumulate_gradients
from trainers.dpo.training_data import normalise_weights
from trainers.metrics import PairSums, from_vector
from trainers.models.lora import Policy, add_lora
from trainers.stop_signal import StopRequested, StopSignal

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ALONE = Workers(0, 1, CPU)
PAIRS = [
    PairTokens((1, 40, 41), (50, 51, 2), (60, 2), line=1, row_id=None),
    PairTokens((1, 42), (52, 2), (61, 62, 63, 2), line=2, row_id=None),
    PairTokens((1, 43, 44, 45, 46), (53, 54, 55, 56, 2), (64, 2), line=3, row_id=None),
    PairTokens((1,), (57, 2), (65, 66, 2), line=4, row_id=None),
    PairTokens((1, 47, 48), (58, 2), (67, 68, 69, 70, 2), line=5, row_id=None),
]
WHOLE = [[0, 1, 2, 3, 4]]

LOSS_CHOICES: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name, "label_smoothing": 0.1 if name == "exo_pair" else 0.0} for name in LOSSES},
    "mixture": {"loss_type": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}},
    "mixture with aot": {
        "loss_type": {"aot": 1.0, "aot_unpaired": 0.5, "ipo": 0.1, "sft": 0.3},
        "label_smoothing": 0.1,
    },
    "LD-DPO": {"ld_alpha": 0.3},
    "LD-DPO and aot": {"loss_type": {"aot": 1.0, "sft": 1.0}, "ld_alpha": 0.3},
    "WPO": {"use_weighting": True},
    "WPO and a mixture": {"loss_type": {"sigmoid": 1.0, "sft": 1.0}, "use_weighting": True},
    "forward KL": {"f_divergence": "forward_kl"},
}


@dataclass(frozen=True, slots=True)
class ThreadWorkers(Workers):
    """Workers that are threads of this process."""

    barrier: Barrier
    shared: list[Tensor | None]

    def sum(self, values: Tensor) -> Tensor:
        self.shared[self.rank] = values
        self.barrier.wait()
        parts = [part for part in self.shared if part is not None]
        total = torch.stack(parts).sum(0)
        self.barrier.wait()
        return total


def moved_policy(*, dropout: float = 0.0) -> Policy:
    """A policy that is not its reference any more: a copy, which costs a third of what making one does."""
    return deepcopy(_moved_policy(dropout))


@cache
def _moved_policy(dropout: float) -> Policy:
    lora = LORA.model_copy(update={"dropout": dropout})
    policy = add_lora(tiny_llama(), lora, initial=None, reference="initial", seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def make_objective(changes: dict[str, Any], *, packed: bool = True, dropout: float = 0.0) -> Objective:
    policy = moved_policy(dropout=dropout)
    layout = PackedLayout(policy, CPU, longest_row=24) if packed else PaddedLayout(policy, CPU)
    dpo = DpoParameters.model_validate(DPO.model_dump() | changes)
    return Objective(policy, layout, dpo, CPU)


def make_step(
    objective: Objective, passes: Sequence[Sequence[int]], workers: Workers = ALONE, pairs: list[PairTokens] = PAIRS
) -> tuple[Tensor, Tensor]:
    """This worker's gradient and sums."""
    reference, step = ReferenceTable(len(pairs)), range(len(pairs))
    if objective.loss.is_coupled:
        sums = accumulate_coupled_gradients(objective, passes, pairs, reference, step=step, workers=workers)
    else:
        sums = accumulate_gradients(objective, passes, pairs, reference, step=step)
    parameters = objective.policy.parameters()
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]), sums


def agree(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=2e-6 * float(theirs[0].abs().max().clamp(min=1)))
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("choice", LOSS_CHOICES)
def test_passes_and_layouts_change_nothing(choice: str) -> None:
    whole = make_step(make_objective(LOSS_CHOICES[choice], packed=False), WHOLE)
    assert whole[0].abs().max() > 1e-4
    agree(make_step(make_objective(LOSS_CHOICES[choice]), WHOLE), whole)
    agree(make_step(make_objective(LOSS_CHOICES[choice]), [[4], [0, 2], [1, 3]]), whole)


HALVES, ONE_IDLE = ([[0, 3], [2]], [[1], [4]]), (WHOLE, [])


@pytest.mark.parametrize(
    ("choice", "shards"),
    [
        *(pytest.param(choice, HALVES, id=choice) for choice in LOSS_CHOICES),
        *(pytest.param(choice, ONE_IDLE, id=f"{choice}, one idle") for choice in ("sigmoid", "sft", "aot")),
    ],
)
def test_shards_change_nothing(choice: str, shards: tuple[list[list[int]], list[list[int]]]) -> None:
    whole = make_step(make_objective(LOSS_CHOICES[choice]), WHOLE)
    barrier, shared = Barrier(2, timeout=30), [None, None]
    workers = [ThreadWorkers(rank, 2, CPU, barrier, shared) for rank in range(2)]
    objectives = [make_objective(LOSS_CHOICES[choice]) for _ in workers]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(make_step, objectives, shards, workers))
    agree((parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]), whole)


@pytest.mark.parametrize("choice", LOSS_CHOICES)
def test_the_loss_is_told_as_evaluation_tells_it(choice: str) -> None:
    trained = from_vector(make_step(make_objective(LOSS_CHOICES[choice]), WHOLE)[1].tolist())
    for budget in (12, 100):
        objective = make_objective(LOSS_CHOICES[choice])
        seen = evaluate(objective, PAIRS, ALONE, ReferenceStates(), token_budget=budget, stop=NEVER)
        for name in ("mean_loss", "logps_chosen", "logps_rejected", "perplexity_rejected", "rewards_chosen"):
            assert getattr(seen, name) == pytest.approx(getattr(trained, name), rel=1e-4), name


@pytest.mark.parametrize("choice", ["sigmoid", "aot"])
def test_one_worker_that_is_asked_to_stop_ends_the_evaluation_of_both(choice: str) -> None:
    barrier, shared, asked = Barrier(2, timeout=30), [None, None], StopSignal()
    asked.request()

    def work(rank: int) -> None:
        workers, stop = ThreadWorkers(rank, 2, CPU, barrier, shared), (NEVER, asked)[rank]
        objective = make_objective(LOSS_CHOICES[choice])
        with pytest.raises(StopRequested):
            evaluate(objective, PAIRS, workers, ReferenceStates(), token_budget=12, stop=stop)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))


@pytest.mark.parametrize("choice", ["sigmoid", "aot", "mixture with aot"])
def test_dropout_is_the_same_in_both_phases(choice: str) -> None:
    """The coupled step is the gradient of what one plain forward with these very masks gives."""
    objective = make_objective(LOSS_CHOICES[choice], dropout=0.3)
    torch.manual_seed(11)
    gradient, _ = make_step(objective, [[0, 1], [2, 3, 4]])
    after = torch.rand(1)

    other = make_objective(LOSS_CHOICES[choice], dropout=0.3)
    torch.manual_seed(11)
    with other.policy.with_dropout():
        scores = [other.score([PAIRS[index] for index in indices]) for indices in ([0, 1], [2, 3, 4])]
    assert torch.equal(torch.rand(1), after)
    loss = naive_step_loss(other, scores)
    expected = torch.autograd.grad(loss, other.policy.parameters())
    torch.testing.assert_close(gradient, torch.cat([part.flatten() for part in expected]), rtol=1e-4, atol=1e-6)


def naive_step_loss(objective: Objective, scores: list[PairScores]) -> Tensor:
    reference = reference_log_probs(objective.policy, objective.layout, PAIRS, objective.dpo.ld_alpha)
    scores_D3 = torch.cat([stack_scores(each) for each in scores])
    return step_loss(scores_D3, reference, PAIRS, objective) / len(PAIRS)


def weighed(*weights: float) -> list[PairTokens]:
    return [replace(pair, weight=weight) for pair, weight in zip(PAIRS, weights, strict=True)]


def test_a_rows_weight_multiplies_its_part_of_the_gradient() -> None:
    pairs = normalise_weights(weighed(1.0, 4.0, 2.0, 2.0, 1.0))
    assert [pair.weight for pair in pairs] == pytest.approx([0.5, 2.0, 1.0, 1.0, 0.5])
    gradient, vector = make_step(make_objective({}), [[0, 1, 2], [3, 4]], pairs=pairs)
    parts, losses = [], []
    for number, pair in enumerate(PAIRS):
        part, alone = make_step(make_objective({}), [[0]], pairs=[pair])
        parts.append(part * pairs[number].weight)
        losses.append(from_vector(alone.tolist()).mean_loss * pairs[number].weight)
    torch.testing.assert_close(gradient, torch.stack(parts).sum(0) / len(PAIRS), rtol=1e-4, atol=1e-6)
    assert from_vector(vector.tolist()).mean_loss == pytest.approx(sum(losses) / 5.0, rel=1e-5)


def test_equal_weights_are_no_weights() -> None:
    assert {pair.weight for pair in normalise_weights(weighed(*[0.1] * 5))} == {1.0}
    assert {pair.weight for pair in normalise_weights(weighed(*[1.7e308] * 5))} == {1.0}


def test_the_tail_past_the_shorter_side_weighs_less() -> None:
    plain, halved = (make_objective(changes).score(PAIRS) for changes in ({}, {"ld_alpha": 0.5}))
    masked = make_objective({"ld_alpha": 0.0}).score(PAIRS)
    for side in ("chosen", "rejected"):
        whole, half, none = (getattr(scores, side).log_probs_B for scores in (plain, halved, masked))
        torch.testing.assert_close(half, (whole + none) / 2)
        torch.testing.assert_close(getattr(halved, side).whole_log_probs_B, whole)
    is_whole_B = masked.chosen.log_probs_B == plain.chosen.log_probs_B
    assert is_whole_B.tolist() == [len(pair.chosen) <= len(pair.rejected) for pair in PAIRS]


def test_coupled_are_those_that_need_two_phases() -> None:
    assert {name for name in LOSSES if make_objective(LOSS_CHOICES[name]).loss.is_coupled} == COUPLED


def test_a_step_without_weight_has_no_loss() -> None:
    nothing = PairSums(**dict.fromkeys(PairSums.__dataclass_fields__, 0.0))
    assert nothing.mean_loss == 0.0
