"""One optimizer step's gradients and sums. B = pairs of a pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.run_spec import DpoParameters
from trainers.data.chat_tokens import PairTokens
from trainers.dpo.loss import LogRatios, dpo_loss
from trainers.dpo.reference import ReferenceTable, reference_log_probs
from trainers.dpo.scores import Layout, PairScores, score
from trainers.metrics import FIELDS, as_vector
from trainers.models.lora import Policy


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised, on what, through what."""

    policy: Policy
    layout: Layout
    dpo: DpoParameters
    device: torch.device


def accumulate_gradients(
    objective: Objective,
    passes: Sequence[Sequence[int]],
    pairs: Sequence[PairTokens],
    reference: ReferenceTable,
    *,
    step_pairs: int,
) -> Tensor:
    """Add this worker's part of the gradient of the mean loss over the step's pairs, pass by pass.

    Returns: the sums over its pairs as a vector.
    """
    total = torch.zeros(len(FIELDS), dtype=torch.float64, device=objective.device)
    for indices in passes:
        batch = [pairs[index] for index in indices]
        if not reference.knows(indices):
            reference.keep(indices, reference_log_probs(objective.policy, objective.layout, batch))
        with objective.policy.with_dropout():
            scores = score(objective.layout, batch)
        losses_B, sums = pair_losses(scores, reference.of(indices, device=objective.device), batch, objective)
        torch.autograd.backward(losses_B.sum() / step_pairs)
        total += sums
    return total


def score_without_dropout(
    objective: Objective, passes: Sequence[Sequence[int]], pairs: Sequence[PairTokens], reference: ReferenceTable
) -> Tensor:
    """Return the sums over pairs whose reference is known, as a vector; no gradient, no dropout."""
    total = torch.zeros(len(FIELDS), dtype=torch.float64, device=objective.device)
    with torch.no_grad():
        for indices in passes:
            batch = [pairs[index] for index in indices]
            scores = score(objective.layout, batch)
            total += pair_losses(scores, reference.of(indices, device=objective.device), batch, objective)[1]
    return total


def pair_losses(
    scores: PairScores, reference_B2: Tensor, pairs: Sequence[PairTokens], objective: Objective
) -> tuple[Tensor, Tensor]:
    """Return the losses (B,) and the vector of their sums, KL left zero."""
    dpo = objective.dpo
    chosen_B = scores.chosen.log_probs_B - reference_B2[:, 0]
    rejected_B = scores.rejected.log_probs_B - reference_B2[:, 1]
    ratios = LogRatios(chosen_B, rejected_B, _lengths(pairs, "chosen", chosen_B), _lengths(pairs, "rejected", chosen_B))
    losses_B = dpo_loss(ratios, loss_type=dpo.loss_type, beta=dpo.beta, label_smoothing=dpo.label_smoothing)
    sums = as_vector(
        device=objective.device,
        pairs=len(pairs),
        loss=losses_B.sum(),
        rewards_chosen=dpo.beta * chosen_B.sum(),
        rewards_rejected=dpo.beta * rejected_B.sum(),
        ranked_right=(chosen_B > rejected_B).sum(),
        logps_chosen=scores.chosen.log_probs_B.sum(),
        logps_rejected=scores.rejected.log_probs_B.sum(),
        chosen_tokens=scores.chosen.predicted_B.sum(),
        chosen_correct=scores.chosen.correct_B.sum(),
        trained_tokens=sum(pair.trained_tokens for pair in pairs),
    )
    return losses_B, sums


def _lengths(pairs: Sequence[PairTokens], side: str, like: Tensor) -> Tensor:
    lengths = [len(pair.chosen if side == "chosen" else pair.rejected) for pair in pairs]
    return torch.tensor(lengths, dtype=like.dtype, device=like.device).clamp(min=1)
