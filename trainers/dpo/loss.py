"""The losses, one value a pair, as pure functions of log-probabilities. B = pairs.

A log-ratio is log π_θ(y|x) − log π_ref(y|x) of a whole completion, in nats. Formulas and their length conventions are
those of TRL 1.16's DPOTrainer, whose numbers these reproduce.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LossType = Literal["sigmoid", "ipo", "hinge"]


@dataclass(frozen=True, slots=True)
class LogRatios:
    """Log-ratios and lengths (completion tokens) of both sides, each (B,), float32."""

    chosen_B: Tensor
    rejected_B: Tensor
    chosen_length_B: Tensor
    rejected_length_B: Tensor


def dpo_loss(ratios: LogRatios, *, loss_type: LossType, beta: float, label_smoothing: float) -> Tensor:
    """Return the loss of each pair, (B,) float32."""
    margin_B = ratios.chosen_B - ratios.rejected_B
    match loss_type:
        case "sigmoid":
            # Eq. 7, arXiv:2305.18290; with label smoothing its conservative form, Eq. 3 of ericmitchell.ai/cdpo.pdf
            kept_B = -logsigmoid(beta * margin_B) * (1 - label_smoothing)
            flipped_B = -logsigmoid(-beta * margin_B) * label_smoothing
            return kept_B + flipped_B
        case "ipo":
            # Eq. 17, arXiv:2310.12036, beta being its τ; ratios a token, as its authors ran it (told to TRL's)
            mean_margin_B = ratios.chosen_B / ratios.chosen_length_B - ratios.rejected_B / ratios.rejected_length_B
            return (mean_margin_B - 1 / (2 * beta)) ** 2
        case "hinge":
            # SLiC's calibration loss in DPO's terms: Eq. 1, arXiv:2305.10425, as in RSO, Eq. 10, arXiv:2309.06657
            return torch.relu(1 - beta * margin_B)


def loss_at_reference(*, loss_type: LossType, beta: float) -> float:
    """Return what every pair costs while policy = reference, whatever the label smoothing."""
    match loss_type:
        case "sigmoid":
            return math.log(2)
        case "ipo":
            return (1 / (2 * beta)) ** 2
        case "hinge":
            return 1.0
