"""The reference's log-probabilities: two numbers a pair, computed when a pair is first met and kept for the whole job.

They are computed on the very pass that the policy then makes, so that before the first step both agree to the last bit.
B = pairs of a pass, D = pairs of the training set.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.loss import LossType, loss_at_reference
from trainers.dpo.scores import Layout, score
from trainers.errors import ReferenceContractBroken
from trainers.metrics import PairSums
from trainers.models.lora import Policy


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
        return self.log_probs_D2[list(indices)].to(device)


def reference_log_probs(policy: Policy, layout: Layout, pairs: Sequence[PairTokens]) -> Tensor:
    """Return the reference's log-probabilities of chosen and rejected, (B, 2) float32."""
    with torch.no_grad(), policy.as_reference():
        scores = score(layout, pairs)
    return torch.stack([scores.chosen.log_probs_B, scores.rejected.log_probs_B], dim=1)


def check_first_step(sums: PairSums, *, loss_type: LossType, beta: float, precision_tolerance: float) -> None:
    """Hold the reference contract: before any update the policy is the reference, so the loss has its closed form.

    A wrong reference trains without any other sign: TRL has shipped one (its PR 6591).
    Raises: ReferenceContractBroken.
    """
    expected = loss_at_reference(loss_type=loss_type, beta=beta)
    margin = (sums.rewards_chosen - sums.rewards_rejected) / sums.pairs
    # A log-probability of hundreds of nats has that many times the precision's error.
    scale = (abs(sums.logps_chosen) + abs(sums.logps_rejected)) / sums.pairs
    tolerance = precision_tolerance * (1.0 + beta * scale)
    if abs(margin) > tolerance or abs(sums.mean_loss - expected) > tolerance * max(1.0, 1.0 / beta):
        raise ReferenceContractBroken(
            f"before the first update the loss is {sums.mean_loss:.6f} and the reward margin {margin:.6f}, but a "
            f"policy equal to its reference has the loss {expected:.6f} and the margin 0; the reference is wrong, "
            "so nothing was trained"
        )
