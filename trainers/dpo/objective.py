"""What is minimised, through what; and a pass's scores as losses and sums. B = pairs of a pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.run_spec import DpoParameters
from trainers.data.chat_tokens import PairTokens
from trainers.dpo.loss import LossOptions, PairLogProbs, dpo_loss, wpo_weight
from trainers.dpo.scores import Layout, PairScores, score
from trainers.host_numbers import to_device
from trainers.metrics import as_vector
from trainers.models.lora import Policy


@dataclass(frozen=True, slots=True)
class Objective:
    policy: Policy
    layout: Layout
    dpo: DpoParameters
    device: torch.device

    @property
    def loss(self) -> LossOptions:
        dpo = self.dpo
        return LossOptions(
            terms=dpo.loss_weights,
            beta=dpo.beta,
            label_smoothing=dpo.label_smoothing,
            f_divergence=dpo.f_divergence,
            f_alpha_divergence_coef=dpo.f_alpha_divergence_coef,
            discopop_tau=dpo.discopop_tau,
            use_weighting=dpo.use_weighting,
        )

    def score(self, pairs: Sequence[PairTokens]) -> PairScores:
        return score(self.layout, pairs, ld_alpha=self.dpo.ld_alpha, with_alignment=self.dpo.use_weighting)


@dataclass(frozen=True, slots=True)
class StepSizes:
    """Of all pairs that meet in a step, over all passes and workers: what a mean over the step is taken over."""

    pairs: int
    chosen_tokens: int

    @classmethod
    def of(cls, pairs: Iterable[PairTokens]) -> "StepSizes":
        counts = [pair.predicted_chosen_tokens for pair in pairs]
        return cls(len(counts), max(1, sum(counts)))


def pair_losses(
    scores: PairScores, reference_B2: Tensor, pairs: Sequence[PairTokens], objective: Objective, sizes: StepSizes
) -> tuple[Tensor, Tensor]:
    """Return the losses times the rows' weights, (B,), and the vector of their sums, KL left zero."""
    compared = pair_log_probs(scores, reference_B2, pairs, sizes)
    losses_B = dpo_loss(compared, objective.loss) * _weights(pairs, like=reference_B2)
    sums = score_sums(scores, reference_B2, pairs, objective)
    return losses_B, sums + as_vector(device=objective.device, loss=losses_B.sum())


def pair_log_probs(
    scores: PairScores, reference_B2: Tensor, pairs: Sequence[PairTokens], sizes: StepSizes
) -> PairLogProbs:
    chosen, rejected = scores.chosen, scores.rejected
    weight_B = None
    if chosen.alignment_B is not None and rejected.alignment_B is not None:
        weight_B = wpo_weight(chosen.alignment_B, rejected.alignment_B)
    return PairLogProbs(
        chosen.log_probs_B,
        rejected.log_probs_B,
        reference_B2[:, 0],
        reference_B2[:, 1],
        *completion_lengths(pairs, like=reference_B2),
        chosen_nll_B=-chosen.whole_log_probs_B * (sizes.pairs / sizes.chosen_tokens),
        wpo_weight_B=weight_B,
    )


def completion_lengths(pairs: Sequence[PairTokens], *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Completion tokens of both sides, each (B,) and at least 1."""
    lengths = [[max(1, len(pair.chosen)) for pair in pairs], [max(1, len(pair.rejected)) for pair in pairs]]
    chosen_B, rejected_B = to_device(lengths, like.device, like.dtype)
    return chosen_B, rejected_B


def score_sums(scores: PairScores, reference_B2: Tensor, pairs: Sequence[PairTokens], objective: Objective) -> Tensor:
    """Return the vector of a pass's sums, loss and KL left zero."""
    chosen, rejected, beta = scores.chosen, scores.rejected, objective.dpo.beta
    chosen_B = chosen.log_probs_B - reference_B2[:, 0]
    rejected_B = rejected.log_probs_B - reference_B2[:, 1]
    return as_vector(
        device=objective.device,
        pairs=len(pairs),
        weights=sum(pair.weight for pair in pairs),
        rewards_chosen=beta * chosen_B.sum(),
        rewards_rejected=beta * rejected_B.sum(),
        ranked_right=(chosen_B > rejected_B).sum(),
        logps_chosen=chosen.log_probs_B.sum(),
        logps_rejected=rejected.log_probs_B.sum(),
        chosen_nats=-chosen.whole_log_probs_B.sum(),
        rejected_nats=-rejected.whole_log_probs_B.sum(),
        chosen_tokens=chosen.predicted_B.sum(),
        rejected_tokens=rejected.predicted_B.sum(),
        chosen_correct=chosen.correct_B.sum(),
        trained_tokens=sum(pair.trained_tokens for pair in pairs),
    )


def _weights(pairs: Sequence[PairTokens], *, like: Tensor) -> Tensor:
    return to_device([pair.weight for pair in pairs], like.device, like.dtype)
