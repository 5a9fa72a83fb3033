"""The reference's log-probabilities: two numbers a pair, computed when a pair is first met and kept for the whole job.

They are computed on the very pass that the policy then makes, so that before the first step both agree to the last bit.
B = pairs of a pass, D = pairs of the training set.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.loss import LossOptions, loss_at_reference
from trainers.dpo.scores import Layout, score
from trainers.errors import ReferenceContractBroken
from trainers.host_numbers import to_device
from trainers.metrics import PairSums, are_finite
from trainers.models.lora import Policy

PRECISION_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}
"""Of a log-probability, relative: what the same pass computed elsewhere may differ by."""


class ReferenceTable:
    """Log-probabilities of both sides of every training pair, NaN where not known yet; float32, on the host."""

    def __init__(self, pairs: int) -> None:
        self.log_probs_D2 = torch.full((pairs, 2), torch.nan)

    def knows(self, indices: Sequence[int]) -> bool:
        return not bool(self.log_probs_D2[list(indices)].isnan().any())

    @property
    def is_whole(self) -> bool:
        return not bool(self.log_probs_D2.isnan().any())

    def forget(self) -> None:
        self.log_probs_D2.fill_(torch.nan)

    def keep(self, indices: Sequence[int], log_probs_B2: Tensor) -> None:
        self.log_probs_D2[list(indices)] = log_probs_B2.float().cpu()

    def of(self, indices: Sequence[int], *, device: torch.device) -> Tensor:
        return to_device(self.log_probs_D2[list(indices)], device)


def reference_log_probs(policy: Policy, layout: Layout, pairs: Sequence[PairTokens], ld_alpha: float | None) -> Tensor:
    """Return the reference's log-probabilities of chosen and rejected, (B, 2) float32; they depend on `ld_alpha`."""
    with torch.no_grad(), policy.as_reference():
        scores = score(layout, pairs, ld_alpha=ld_alpha)
    return torch.stack([scores.chosen.log_probs_B, scores.rejected.log_probs_B], dim=1)


def check_first_step(sums: PairSums, loss: LossOptions, *, precision_tolerance: float) -> None:
    """Hold the reference contract: before any update the policy is the reference, so margin and loss are known.

    A wrong reference trains without any other sign: TRL has shipped one (its PR 6591).
    Raises: ReferenceContractBroken.
    """
    if not are_finite(sums):
        return  # an overflow says nothing of the reference; the step that made it fails with its own words
    margin = (sums.rewards_chosen - sums.rewards_rejected) / sums.pairs
    # A log-probability of hundreds of nats has that many times the precision's error.
    scale = (abs(sums.logps_chosen) + abs(sums.logps_rejected)) / sums.pairs
    if abs(margin) > precision_tolerance * (1.0 + loss.beta * scale):
        raise ReferenceContractBroken(
            f"before the first update the reward margin is {margin:.8g}, but a policy equal to its reference has the "
            "margin 0; the reference is wrong, so nothing was trained"
        )
    expected = loss_at_reference(loss)
    if expected is None:
        return
    tolerance = precision_tolerance * (1.0 + abs(expected.value) + expected.slope * scale)
    if abs(sums.mean_loss - expected.value) > tolerance:
        raise ReferenceContractBroken(
            f"before the first update the loss is {sums.mean_loss:.8g}, but a policy equal to its reference has the "
            f"loss {expected.value:.8g}; the reference is wrong, so nothing was trained"
        )
