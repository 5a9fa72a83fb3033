"""One optimizer step over all workers: gradients and numbers summed, contract and finiteness checked, weights moved.

The host waits for the device once a step, for the numbers that are told, where the reference was computed once more, to
keep it, and with several workers once more, to agree that all of them had enough memory. D = pairs of the step.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.run_record import StepMetrics
from schemas.run_spec import RunSpec
from trainers.data.chat_tokens import name_pairs
from trainers.distributed import Workers
from trainers.dpo.coupled_step import accumulate_coupled_gradients
from trainers.dpo.plan import shard
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import Progress
from trainers.dpo.reference import PRECISION_TOLERANCE, ReferenceTable, check_first_step
from trainers.dpo.step import accumulate_gradients, score_without_dropout
from trainers.dpo.token_budget import TokenBudget
from trainers.dpo.updates import set_learning_rate, sum_and_clip, sum_over_workers
from trainers.errors import NonFiniteLoss
from trainers.metrics import FIELDS, PairSums, StepPosition, are_finite, from_vector, step_metrics
from trainers.pass_memory import all_fit
from trainers.seeding import seed_dropout
from trainers.stop_signal import StopSignal


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    prepared: Prepared
    spec: RunSpec
    workers: Workers
    stop: StopSignal
    budget: TokenBudget

    def make(self, step: int, progress: Progress) -> tuple[StepMetrics, bool]:
        """Make `step`. Returns its numbers, and whether any worker was asked to stop.

        Raises: NonFiniteLoss, NotEnoughMemory, ReferenceContractBroken.
        """
        began = time.perf_counter()
        plan = self.prepared.plan
        indices = plan.batch(step)
        dpo = self.spec.dpo
        rate = set_learning_rate(
            self.prepared.optimizer, step, total_steps=plan.total_steps, peak=dpo.learning_rate, dpo=dpo
        )
        sums, grad_norm, stops = self.budget.fit(
            lambda: self._sum_gradients(step, indices, progress.reference),
            indices,
            self.prepared.pairs,
            during=f"at step {step}",
        )
        if not are_finite(sums) or not math.isfinite(grad_norm):
            raise NonFiniteLoss(self._describe_non_finite(step, indices))
        self.prepared.optimizer.step()
        position = StepPosition(
            step=step,
            total_steps=plan.total_steps,
            epoch=step / plan.steps_per_epoch,
            learning_rate=rate,
            trained_tokens=progress.trained_tokens + int(sums.trained_tokens),
            step_seconds=time.perf_counter() - began,
        )
        return step_metrics(sums, position, grad_norm=grad_norm), stops

    def _sum_gradients(self, step: int, indices: list[int], reference: ReferenceTable) -> tuple[PairSums, float, bool]:
        workers, parameters = self.workers, self.prepared.objective.policy.parameters()
        passes = self._passes(indices)
        self.prepared.optimizer.zero_grad(set_to_none=True)
        seed_dropout(self.spec.seed, step=step, rank=workers.rank)
        is_first_pass = not reference.knows(indices)
        mine = self._accumulate(passes, reference, indices)
        summed = sum_over_workers(mine, workers, self.stop)
        if is_first_pass and workers.world_size > 1:
            self._share_reference(indices, passes, reference)
        if step == 1:
            self._check_contract(summed[: len(FIELDS)], passes, reference)
        sums, grad_norm, stops = sum_and_clip(summed, parameters, workers, max_grad_norm=self.spec.dpo.max_grad_norm)
        return from_vector(sums), grad_norm, stops

    def _accumulate(self, passes: list[list[int]], reference: ReferenceTable, step: list[int]) -> Tensor:
        objective, pairs = self.prepared.objective, self.prepared.pairs
        if objective.loss.is_coupled:
            return accumulate_coupled_gradients(objective, passes, pairs, reference, step=step, workers=self.workers)
        with all_fit(self.workers):
            return accumulate_gradients(objective, passes, pairs, reference, step=step)

    def _passes(self, indices: Sequence[int]) -> list[list[int]]:
        pairs, workers = self.prepared.pairs, self.workers
        mine = shard(indices, pairs, rank=workers.rank, world_size=workers.world_size)
        return self.budget.cut(mine, pairs)

    def _share_reference(self, indices: list[int], passes: list[list[int]], reference: ReferenceTable) -> None:
        """Tell the other workers what this one has computed: the next epoch deals the pairs out anew."""
        mine = {index for part in passes for index in part}
        rows = [reference.of([index], device=self.workers.device)[0] for index in indices]
        known_D2 = torch.stack(
            [row if index in mine else row.new_zeros(2) for index, row in zip(indices, rows, strict=True)]
        )
        reference.keep(indices, self.workers.sum(known_D2))

    def _check_contract(self, summed: Tensor, passes: list[list[int]], reference: ReferenceTable) -> None:
        objective = self.prepared.objective
        if not objective.policy.starts_at_reference:
            return
        if objective.policy.reference_adapter is not None and self.spec.lora.dropout > 0:
            # Dropout alone moves an adapter that is not zero: look at the policy without it.
            still = score_without_dropout(objective, passes, self.prepared.pairs, reference)
            summed = self.workers.sum(still)
        check_first_step(
            from_vector(summed.tolist()),
            objective.loss,
            precision_tolerance=PRECISION_TOLERANCE[self.spec.precision],
        )

    def _describe_non_finite(self, step: int, indices: Sequence[int]) -> str:
        named = name_pairs([self.prepared.pairs[index] for index in indices])
        remedy = (
            "Lower the learning rate or look at these rows; what was saved before this step is kept"
            if step > 1
            else "No learning rate has worked yet: look at beta and the loss's other numbers, which may be too small "
            "or too large for float32, or at these rows"
        )
        return f"the loss or its gradient is not a finite number at step {step}; its pairs: {named}. {remedy}"
