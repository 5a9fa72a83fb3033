"""Sums over pairs and tokens, added up over passes and workers, and the averages that a user reads.

Never a mean of means: a short last batch or an uneven shard would weigh too much.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

from schemas.run_record import EvaluationMetrics, StepMetrics


@dataclass(frozen=True, slots=True)
class PairSums:
    """Log-probabilities and KL in nats. Each field is a scalar, or what `total` makes of it."""

    pairs: float
    weights: float
    """Of the pairs' rows."""
    loss: float
    """Of the pairs, each times its weight."""
    rewards_chosen: float
    rewards_rejected: float
    ranked_right: float
    """Pairs whose chosen reward is the higher one."""
    logps_chosen: float
    logps_rejected: float
    chosen_nats: float
    """-log p of the chosen completions with every token counting once, whatever `ld_alpha` says."""
    rejected_nats: float
    chosen_tokens: float
    """Predicted tokens of the chosen completions."""
    rejected_tokens: float
    chosen_correct: float
    """Of those, the ones that are the policy's argmax."""
    trained_tokens: float
    kl: float
    kl_positions: float

    def mean(self, total: float) -> float:
        return total / self.pairs

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weights if self.weights else 0.0

    @property
    def mean_token_accuracy(self) -> float:
        return self.chosen_correct / max(1.0, self.chosen_tokens)

    @property
    def perplexity_chosen(self) -> float:
        return _perplexity(self.chosen_nats, self.chosen_tokens)

    @property
    def perplexity_rejected(self) -> float:
        return _perplexity(self.rejected_nats, self.rejected_tokens)


def _perplexity(nats: float, tokens: float) -> float:
    # e^88 is about float32's end; a perplexity past it says nothing more.
    return math.exp(min(nats / max(1.0, tokens), 88.0))


FIELDS = tuple(field.name for field in fields(PairSums))


def as_vector(*, device: torch.device, **sums: Tensor | float) -> Tensor:
    """Stack the fields of `PairSums`, in their order and zero where not given, as float64; waits for no device."""
    assert sums.keys() <= set(FIELDS)
    return torch.stack([_scalar(sums.get(name, 0.0), device) for name in FIELDS])


def _scalar(value: Tensor | float, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float64)
    return torch.full((), value, dtype=torch.float64, device=device)


def from_vector(vector: Sequence[float]) -> PairSums:
    return PairSums(*vector)


def are_finite(sums: PairSums) -> bool:
    return all(math.isfinite(value) for value in astuple(sums))


@dataclass(frozen=True, slots=True)
class StepPosition:
    step: int
    total_steps: int
    epoch: float
    learning_rate: float
    trained_tokens: int
    """Since the start of the job."""
    step_seconds: float


def step_metrics(sums: PairSums, position: StepPosition, *, grad_norm: float) -> StepMetrics:
    return StepMetrics(
        step=position.step,
        total_steps=position.total_steps,
        epoch=position.epoch,
        train_loss=sums.mean_loss,
        learning_rate=position.learning_rate,
        grad_norm=grad_norm,
        rewards_chosen=sums.mean(sums.rewards_chosen),
        rewards_rejected=sums.mean(sums.rewards_rejected),
        rewards_margin=sums.mean(sums.rewards_chosen - sums.rewards_rejected),
        rewards_accuracy=sums.mean(sums.ranked_right),
        logps_chosen=sums.mean(sums.logps_chosen),
        logps_rejected=sums.mean(sums.logps_rejected),
        perplexity_chosen=sums.perplexity_chosen,
        perplexity_rejected=sums.perplexity_rejected,
        train_mean_token_accuracy=sums.mean_token_accuracy,
        trained_tokens=position.trained_tokens,
        step_seconds=position.step_seconds,
    )


def evaluation_metrics(sums: PairSums, *, step: int, total_steps: int) -> EvaluationMetrics:
    return EvaluationMetrics(
        step=step,
        total_steps=total_steps,
        valid_loss=sums.mean_loss,
        valid_rewards_chosen=sums.mean(sums.rewards_chosen),
        valid_rewards_rejected=sums.mean(sums.rewards_rejected),
        valid_rewards_margin=sums.mean(sums.rewards_chosen - sums.rewards_rejected),
        valid_rewards_accuracy=sums.mean(sums.ranked_right),
        valid_logps_chosen=sums.mean(sums.logps_chosen),
        valid_logps_rejected=sums.mean(sums.logps_rejected),
        valid_perplexity_chosen=sums.perplexity_chosen,
        valid_perplexity_rejected=sums.perplexity_rejected,
        valid_mean_token_accuracy=sums.mean_token_accuracy,
        valid_kl=sums.kl / max(1.0, sums.kl_positions),
    )
