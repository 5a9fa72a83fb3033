"""One optimizer step of SFT over all workers: gradients and numbers summed, finiteness checked, weights moved."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.optim import AdamW

from schemas.run_record import SftMetrics
from schemas.run_spec import RunSpec, SftParameters
from trainers.data.chat_tokens import PairTokens, name_pairs
from trainers.distributed import Workers
from trainers.dpo.objective import Objective
from trainers.dpo.plan import StepPlan, shard
from trainers.dpo.token_budget import TokenBudget
from trainers.dpo.updates import set_learning_rate, sum_and_clip, sum_over_workers
from trainers.errors import NonFiniteLoss
from trainers.pass_memory import all_fit
from trainers.seeding import seed_dropout
from trainers.sft.step import TokenSums, accumulate_gradients, predicted_tokens
from trainers.stop_signal import StopSignal


@dataclass(slots=True)
class SftStep:
    objective: Objective
    optimizer: AdamW
    plan: StepPlan
    pairs: Sequence[PairTokens]
    """Without their rejected sides."""
    spec: RunSpec
    sft: SftParameters
    workers: Workers
    stop: StopSignal
    budget: TokenBudget
    dpo_tokens: float
    """What DPO passes after this phase, as tokens of a training pass."""
    _passed_tokens: int = field(default=0, init=False)
    """In this attempt, and how long it took."""
    _passed_s: float = field(default=0.0, init=False)

    def make(self, step: int, *, trained_tokens: int) -> tuple[SftMetrics, bool]:
        """Make `step`. Returns its numbers, and whether any worker was asked to stop.

        Raises: NonFiniteLoss, NotEnoughMemory.
        """
        began = time.perf_counter()
        indices = self.plan.batch(step)
        rate = set_learning_rate(
            self.optimizer,
            step,
            total_steps=self.plan.total_steps,
            peak=self.sft.learning_rate,
            dpo=self.spec.dpo,
        )
        sums, grad_norm, stops = self.budget.fit(
            lambda: self._sum_gradients(step, indices), indices, self.pairs, during=f"at SFT step {step}"
        )
        if not math.isfinite(sums.nats) or not math.isfinite(grad_norm):
            raise NonFiniteLoss(self._describe_non_finite(step, indices))
        self.optimizer.step()
        step_seconds = time.perf_counter() - began
        self._passed_tokens += sum(self.pairs[index].packed_length for index in indices)
        self._passed_s += step_seconds
        metrics = SftMetrics(
            step=step,
            total_steps=self.plan.total_steps,
            epoch=step / self.plan.steps_per_epoch,
            loss=sums.nats / (sums.weights or 1.0),
            learning_rate=rate,
            grad_norm=grad_norm,
            mean_token_accuracy=sums.correct / max(1.0, sums.tokens),
            trained_tokens=trained_tokens + int(sums.trained_tokens),
            step_seconds=step_seconds,
            seconds_left=self._estimate_seconds_left(step),
        )
        return metrics, stops

    def _sum_gradients(self, step: int, indices: Sequence[int]) -> tuple[TokenSums, float, bool]:
        workers, parameters = self.workers, self.objective.policy.parameters()
        self.optimizer.zero_grad(set_to_none=True)
        seed_dropout(self.plan.seed, step=step, rank=workers.rank)
        mine = shard(indices, self.pairs, rank=workers.rank, world_size=workers.world_size)
        passes = [[self.pairs[index] for index in part] for part in self.budget.cut(mine, self.pairs)]
        step_tokens = max(1, predicted_tokens([self.pairs[index] for index in indices]))
        with all_fit(workers):
            sums = accumulate_gradients(self.objective, passes, step_tokens=step_tokens)
        summed = sum_over_workers(sums, workers, self.stop)
        totals, norm, stops = sum_and_clip(summed, parameters, workers, max_grad_norm=self.spec.dpo.max_grad_norm)
        return TokenSums(*totals), norm, stops

    def _estimate_seconds_left(self, step: int) -> float:
        """For the rest of the job, at this attempt's time a token."""
        epochs_left = (self.plan.total_steps - step) / self.plan.steps_per_epoch
        tokens_left = epochs_left * sum(pair.packed_length for pair in self.pairs) + self.dpo_tokens
        return tokens_left * self._passed_s / max(1, self._passed_tokens)

    def _describe_non_finite(self, step: int, indices: Sequence[int]) -> str:
        return (
            f"the loss or its gradient is not a finite number at SFT step {step}; its pairs: "
            f"{name_pairs([self.pairs[index] for index in indices])}. "
            "Lower method.dpo.reference.learning_rate or look at these rows"
        )
