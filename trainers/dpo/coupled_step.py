"""One optimizer step's gradients where a pair's loss depends on the step's other pairs, as optimal transport's does.

Two phases. First every pass is scored without gradient, and all workers learn all scores: the gradient of the whole
step's loss with respect to each of them follows. Then the passes are made again, forward and backward, with these as
weights. Both phases draw the same dropout, so the second finds the scores of the first.

D = pairs of the step, over all workers; B = pairs of a pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers
from trainers.dpo.loss import PairLogProbs, dpo_loss
from trainers.dpo.objective import Objective, StepSizes, completion_lengths, score_sums
from trainers.dpo.reference import ReferenceTable
from trainers.dpo.rounds import PassShape, make_passes
from trainers.dpo.scores import PairScores
from trainers.dpo.step import StepReference
from trainers.metrics import as_vector
from trainers.pass_memory import all_fit

SCORES = 3
"""A pair's chosen and rejected log-probs, and the chosen one with every token counting once."""


class StepTable:
    """The scores of a step's pairs and their reference's, collected pass by pass, then over workers."""

    def __init__(self, step: Sequence[int], *, device: torch.device) -> None:
        self._place = {index: place for place, index in enumerate(step)}
        self._values_D5 = torch.zeros(len(step), SCORES + 2, device=device)

    def keep(self, indices: Sequence[int], scores: PairScores, reference_B2: Tensor) -> None:
        self._values_D5[self.places(indices)] = torch.cat([stack_scores(scores).detach(), reference_B2], dim=1)

    def gather(self, workers: Workers) -> tuple[Tensor, Tensor]:
        """Return the scores (D, 3) and the reference (D, 2) of all pairs, on every worker."""
        values_D5 = workers.sum(self._values_D5)
        return values_D5[:, :SCORES], values_D5[:, SCORES:]

    def places(self, indices: Sequence[int]) -> list[int]:
        return [self._place[index] for index in indices]


def accumulate_coupled_gradients(
    objective: Objective,
    passes: Sequence[Sequence[int]],
    pairs: Sequence[PairTokens],
    reference: ReferenceTable,
    *,
    step: Sequence[int],
    workers: Workers,
) -> Tensor:
    """Add this worker's part of the gradient of the loss over all pairs of `step`.

    Returns: the sums over its pairs as a vector; the loss, which belongs to no pair, stands in worker 0's.
    Raises: RanOutOfMemory.
    """
    device, known = objective.device, StepReference(objective, reference, step)
    table = StepTable(step, device=device)
    drawn_again = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def score_first(indices: Sequence[int]) -> None:
        batch = [pairs[index] for index in indices]
        reference_B2 = known.of(indices, batch)
        with objective.policy.with_dropout():
            table.keep(indices, objective.score(batch), reference_B2)

    with all_fit(workers), drawn_again, torch.no_grad():
        make_passes(objective, passes, score_first, PassShape(forwards=1 + known.fills, has_gradient=False))
    known.keep()
    loss, upstream_D3 = _differentiate(table, [pairs[index] for index in step], objective, workers)
    total = as_vector(device=device, loss=loss if workers.writes else 0.0)

    def make_again(indices: Sequence[int]) -> None:
        batch = [pairs[index] for index in indices]
        with objective.policy.with_dropout():
            scores = objective.score(batch)
        torch.autograd.backward((stack_scores(scores) * upstream_D3[table.places(indices)]).sum())
        total.add_(score_sums(scores, reference.of(indices, device=device), batch, objective))

    with all_fit(workers):
        make_passes(objective, passes, make_again, PassShape(forwards=0, has_gradient=True))
    return total


def _differentiate(
    table: StepTable, pairs: Sequence[PairTokens], objective: Objective, workers: Workers
) -> tuple[Tensor, Tensor]:
    """Return the step's loss, and its mean's gradient with respect to every score, (D, 3)."""
    scores_D3, reference_D2 = table.gather(workers)
    scores_D3.requires_grad_()
    loss = step_loss(scores_D3, reference_D2, pairs, objective)
    (upstream_D3,) = torch.autograd.grad(loss / len(pairs), scores_D3)
    return loss, upstream_D3


def step_loss(scores_D3: Tensor, reference_D2: Tensor, pairs: Sequence[PairTokens], objective: Objective) -> Tensor:
    """Return the sum of the losses of all pairs of a step. The rows' weights are equal: a rank has none of its own."""
    sizes = StepSizes.of(pairs)
    chosen_D, rejected_D, whole_chosen_D = scores_D3.unbind(1)
    compared = PairLogProbs(
        chosen_D,
        rejected_D,
        reference_D2[:, 0],
        reference_D2[:, 1],
        *completion_lengths(pairs, like=scores_D3),
        chosen_nll_B=-whole_chosen_D * (sizes.pairs / sizes.chosen_tokens),
        wpo_weight_B=None,
    )
    return dpo_loss(compared, objective.loss).sum()


def stack_scores(scores: PairScores) -> Tensor:
    """Return (B, 3)."""
    chosen, rejected = scores.chosen, scores.rejected
    return torch.stack([chosen.log_probs_B, rejected.log_probs_B, chosen.whole_log_probs_B], dim=1)
