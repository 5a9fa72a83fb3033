"""Every loss of TRL 1.16's DPOTrainer, as pure functions of log-probabilities; each names its equation and source.

Formulas and length conventions are those of TRL, whose numbers these reproduce. A log-ratio is
log π_θ(y|x) − log π_ref(y|x) of a whole completion, in nats. A loss has one value a pair, and the mean of those is
minimised; the optimal transport losses sort over the pairs they are given, so they are given a whole step. B = pairs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
FDivergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]

COUPLED: frozenset[LossType] = frozenset({"aot", "aot_unpaired"})
"""Their value for one pair depends on the other pairs."""
LARGEST_EXPONENT = 40.0
"""e^40 can still be squared in float32; a score past it says nothing more, and its gradient is zero."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    terms: Mapping[LossType, float]
    """The losses that are summed, and the weight of each."""
    beta: float
    label_smoothing: float = 0.0
    f_divergence: FDivergence = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    discopop_tau: float = 0.05
    use_weighting: bool = False
    """Weigh pairs as WPO does."""

    @property
    def is_coupled(self) -> bool:
        return not COUPLED.isdisjoint(self.terms)


@dataclass(frozen=True, slots=True)
class PairLogProbs:
    """Log-probabilities of both sides under policy and reference, each (B,), float32, in nats."""

    chosen_B: Tensor
    rejected_B: Tensor
    reference_chosen_B: Tensor
    reference_rejected_B: Tensor
    chosen_length_B: Tensor
    """Completion tokens."""
    rejected_length_B: Tensor
    chosen_nll_B: Tensor
    """-log π_θ(chosen) with every token counting once, over the step's mean of chosen tokens a pair: the mean of these
    over the step is the mean over its tokens."""
    wpo_weight_B: Tensor | None
    """Set with `use_weighting` alone; without gradient."""

    @property
    def chosen_ratio(self) -> Tensor:
        return self.chosen_B - self.reference_chosen_B

    @property
    def rejected_ratio(self) -> Tensor:
        return self.rejected_B - self.reference_rejected_B


@dataclass(frozen=True, slots=True)
class LossAtReference:
    value: float
    slope: float
    """By how much an error of one nat in both log-ratios moves it."""


def dpo_loss(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    """Return the weighted sum of the terms, (B,) float32. A coupled term's values belong to ranks, not to pairs."""
    terms = [weight * LOSSES[name](pairs, options) for name, weight in options.terms.items()]
    loss_B = torch.stack(terms).sum(0)
    return loss_B if pairs.wpo_weight_B is None else loss_B * pairs.wpo_weight_B


def wpo_weight(chosen_alignment_B: Tensor, rejected_alignment_B: Tensor) -> Tensor:
    """Return how likely the policy itself would be to write the pair, (B,), from means over each completion's tokens.

    An alignment is log p(token) - log Σ p² over the vocabulary: Eq. 2 and "sampled alignment", arXiv:2406.11827.
    """
    return chosen_alignment_B.exp() * rejected_alignment_B.exp()


def loss_at_reference(options: LossOptions) -> LossAtReference | None:
    """Return what every pair costs while policy = reference; None where that depends on the pair."""
    if "sft" in options.terms or options.use_weighting:
        return None
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    chosen, rejected = zero.clone().requires_grad_(), zero.clone().requires_grad_()
    with torch.enable_grad():
        loss = dpo_loss(PairLogProbs(chosen, rejected, zero, zero, one, one, zero, None), options).sum()
        gradients = torch.autograd.grad(loss, (chosen, rejected), allow_unused=True)
    return LossAtReference(loss.item(), sum(abs(gradient.item()) for gradient in gradients if gradient is not None))


def _sigmoid(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Eq. 7, arXiv:2305.18290; with label smoothing its conservative form, Eq. 3 of ericmitchell.ai/cdpo.pdf
    return _smoothed_logistic(options.beta * _margin(pairs, options), options.label_smoothing)


def _sigmoid_norm(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # -log σ(β (r_w / |y_w| - r_l / |y_l|)), r being log-ratios: DPO over lengths, as in Tülu 3, arXiv:2411.15124
    return -logsigmoid(options.beta * _margin_a_token(pairs, options))


def _hinge(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # SLiC's calibration loss in DPO's terms: Eq. 1, arXiv:2305.10425, as in RSO, Eq. 10, arXiv:2309.06657
    return torch.relu(1 - options.beta * _margin(pairs, options))


def _ipo(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Eq. 17, arXiv:2310.12036, beta being its τ; ratios a token, as its authors ran it (told to TRL's)
    return (_margin_a_token(pairs, options) - 1 / (2 * options.beta)) ** 2


def _exo_pair(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Eq. 16, arXiv:2402.00856: KL(p_θ ‖ p_r) over {chosen, rejected}, p_r being (1 - ε, ε)
    z_B, epsilon = options.beta * _margin(pairs, options), options.label_smoothing
    chosen_B = torch.sigmoid(z_B) * (logsigmoid(z_B) - math.log1p(-epsilon))
    rejected_B = torch.sigmoid(-z_B) * (logsigmoid(-z_B) - math.log(epsilon))
    return chosen_B + rejected_B


def _nca_pair(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # -log σ(β r_w) - ½ log σ(-β r_w) - ½ log σ(-β r_l): noise contrastive alignment of two, arXiv:2402.05369
    chosen_B, rejected_B = options.beta * pairs.chosen_ratio, options.beta * pairs.rejected_ratio
    return -logsigmoid(chosen_B) - 0.5 * logsigmoid(-chosen_B) - 0.5 * logsigmoid(-rejected_B)


def _robust(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # (-(1 - ε) log σ(z) + ε log σ(-z)) / (1 - 2ε), unbiased under labels flipped with probability ε: arXiv:2403.00409
    z_B, epsilon = options.beta * _margin(pairs, options), options.label_smoothing
    return (-(1 - epsilon) * logsigmoid(z_B) + epsilon * logsigmoid(-z_B)) / (1 - 2 * epsilon)


def _bco_pair(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # -log σ(β r_w) - log σ(-β r_l): binary classifier optimisation, without its reward shift, arXiv:2404.04656
    return -logsigmoid(options.beta * pairs.chosen_ratio) - logsigmoid(-options.beta * pairs.rejected_ratio)


def _sppo_hard(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Eq. 4.7, arXiv:2405.00675, with 1 for the chance that chosen wins; beta is its 1/η
    half = 0.5 / options.beta
    return (pairs.chosen_ratio - half) ** 2 + (pairs.rejected_ratio + half) ** 2


def _aot(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # -log σ(β (q_θ - q_ref)), q being the sorted margins log π(y_w) - log π(y_l): alignment via optimal transport,
    # paired, arXiv:2406.05882
    policy_B = (pairs.chosen_B - pairs.rejected_B).sort().values
    reference_B = (pairs.reference_chosen_B - pairs.reference_rejected_B).sort().values
    return _smoothed_logistic(options.beta * (policy_B - reference_B), options.label_smoothing)


def _aot_unpaired(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # -log σ(β (q_w - q_l)), q being each side's sorted log-ratios: the unpaired form, arXiv:2406.05882
    difference_B = pairs.chosen_ratio.sort().values - pairs.rejected_ratio.sort().values
    return _smoothed_logistic(options.beta * difference_B, options.label_smoothing)


def _apo_zero(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Anchored: chosen up, rejected down, for chosen answers better than the model's own. Eq. 7, arXiv:2408.06266
    return torch.sigmoid(-options.beta * pairs.chosen_ratio) + torch.sigmoid(options.beta * pairs.rejected_ratio)


def _apo_down(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Anchored: both down, rejected further, for chosen answers worse than the model's own. Eq. 8, arXiv:2408.06266
    margin_B = pairs.chosen_ratio - pairs.rejected_ratio
    return torch.sigmoid(options.beta * pairs.chosen_ratio) + torch.sigmoid(-options.beta * margin_B)


def _discopop(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    # Eq. 5, arXiv:2406.08414: logistic where the margin is wrong, exponential where it is right; the latter as one
    # exponent, since ∞ · 0 lies at its wrong end.
    z_B, tau = options.beta * _margin(pairs, options), options.discopop_tau
    logistic_B = -logsigmoid(z_B) * torch.sigmoid(-z_B / tau)
    exponential_B = _bounded_exp(logsigmoid(z_B / tau) - z_B)
    return logistic_B + exponential_B


def _sft(pairs: PairLogProbs, _: LossOptions) -> Tensor:
    # -log π_θ(y_w) a token: maximum likelihood on the chosen side, a term of RPO, arXiv:2405.16436, and MPO, 2411.10442
    return pairs.chosen_nll_B


LOSSES: dict[LossType, Callable[[PairLogProbs, LossOptions], Tensor]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "robust": _robust,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sft": _sft,
    "sigmoid_norm": _sigmoid_norm,
}


def _smoothed_logistic(z_B: Tensor, label_smoothing: float) -> Tensor:
    """-log σ(z), the label being flipped with probability `label_smoothing`."""
    return -logsigmoid(z_B) * (1 - label_smoothing) - logsigmoid(-z_B) * label_smoothing


def _margin(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    return _score(pairs.chosen_ratio, options) - _score(pairs.rejected_ratio, options)


def _margin_a_token(pairs: PairLogProbs, options: LossOptions) -> Tensor:
    chosen_B = _score(pairs.chosen_ratio, options) / pairs.chosen_length_B
    return chosen_B - _score(pairs.rejected_ratio, options) / pairs.rejected_length_B


def _score(ratio_B: Tensor, options: LossOptions) -> Tensor:
    """f'(u) at u = π_θ / π_ref, which takes the log-ratio's place under another divergence: f-DPO, arXiv:2309.16240."""
    match options.f_divergence:
        case "reverse_kl":  # f(u) = u log u; the constant 1 cancels in every difference
            return ratio_B
        case "forward_kl":  # f(u) = -log u, and 1 added so that the reference scores 0
            return 1 - _bounded_exp(-ratio_B)
        case "js_divergence":  # f'(u) = log(2u / (1 + u))
            return math.log(2) + logsigmoid(ratio_B)
        case "alpha_divergence":  # f'(u) = (u^(α - 1) - 1) / (α - 1), whose limit at α = 1 is the reverse KL's
            power = options.f_alpha_divergence_coef - 1
            if abs(power) < 1e-6:
                return ratio_B
            return (power * ratio_B).clamp(max=LARGEST_EXPONENT).expm1() / power


def _bounded_exp(exponent_B: Tensor) -> Tensor:
    return exponent_B.clamp(max=LARGEST_EXPONENT).exp()
