"""Every loss and its gradient against the formulas written out in float64, at extremes, and at the reference."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from schemas import fine_tuning
from trainers.dpo.loss import (
    COUPLED,
    LOSSES,
    FDivergence,
    LossOptions,
    LossType,
    PairLogProbs,
    dpo_loss,
    loss_at_reference,
    wpo_weight,
)

DIVERGENCES: tuple[FDivergence, ...] = get_args(FDivergence)
CHOSEN, REJECTED = [-41.0, -20.5, -33.0, -8.25], [-39.5, -26.0, -30.0, -19.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-42.5, -18.5, -33.3, -9.0], [-39.7, -29.0, -21.0, -18.5]
LENGTHS, REJECTED_LENGTHS = [4.0, 7.0, 2.0, 3.0], [5.0, 6.0, 3.0, 8.0]


def made_pairs(dtype: torch.dtype = torch.float64) -> PairLogProbs:
    columns = [CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, LENGTHS, REJECTED_LENGTHS]
    made = [torch.tensor(column, dtype=dtype) for column in columns]
    chosen, rejected = made[0].requires_grad_(), made[1].requires_grad_()
    return PairLogProbs(chosen, rejected, *made[2:], chosen_nll_B=-chosen / 4, wpo_weight_B=None)


def options_of(*losses: LossType, **changes: Any) -> LossOptions:
    smoothing = 0.1 if "exo_pair" in losses else 0.0
    made = LossOptions(terms=dict.fromkeys(losses, 1.0), beta=0.3, label_smoothing=smoothing)
    return replace(made, **changes)


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def score(ratio: float, divergence: FDivergence, alpha: float) -> float:
    """f'(u), and a constant that makes f'(1) zero."""
    u = math.exp(ratio)
    return {
        "reverse_kl": math.log(u),
        "forward_kl": 1 - 1 / u,
        "js_divergence": math.log(2 * u / (1 + u)),
        "alpha_divergence": (u ** (alpha - 1) - 1) / (alpha - 1),
    }[divergence]


def naive_losses(name: LossType, chosen: list[float], rejected: list[float], options: LossOptions) -> list[float]:
    """Plain floats, pair by pair; sorted ranks for optimal transport."""
    beta, epsilon, tau = options.beta, options.label_smoothing, options.discopop_tau
    r_w = [c - ref for c, ref in zip(chosen, REFERENCE_CHOSEN, strict=True)]
    r_l = [c - ref for c, ref in zip(rejected, REFERENCE_REJECTED, strict=True)]
    divergence, alpha = options.f_divergence, options.f_alpha_divergence_coef
    s_w, s_l = ([score(ratio, divergence, alpha) for ratio in side] for side in (r_w, r_l))
    deltas = [w - lost for w, lost in zip(s_w, s_l, strict=True)]
    a_token = [w / n_w - lost / n_l for w, lost, n_w, n_l in zip(s_w, s_l, LENGTHS, REJECTED_LENGTHS, strict=True)]
    both = list(zip(r_w, r_l, strict=True))
    margins = sorted(c - r for c, r in zip(chosen, rejected, strict=True))
    reference = sorted(c - r for c, r in zip(REFERENCE_CHOSEN, REFERENCE_REJECTED, strict=True))
    transported = [policy - ref for policy, ref in zip(margins, reference, strict=True)]
    unpaired = [w - lost for w, lost in zip(sorted(r_w), sorted(r_l), strict=True)]

    def smoothed(z: float) -> float:
        return -(1 - epsilon) * math.log(sigma(z)) - epsilon * math.log(sigma(-z))

    def exo(z: float) -> float:
        p, q = (sigma(z), sigma(-z)), (1 - epsilon, epsilon)
        return sum(p_i * math.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True))

    formulas: dict[LossType, Callable[[], list[float]]] = {
        "sigmoid": lambda: [smoothed(beta * d) for d in deltas],
        "hinge": lambda: [max(0.0, 1 - beta * d) for d in deltas],
        "ipo": lambda: [(d - 1 / (2 * beta)) ** 2 for d in a_token],
        "exo_pair": lambda: [exo(beta * d) for d in deltas],
        "nca_pair": lambda: [
            -math.log(sigma(beta * w)) - (math.log(sigma(-beta * w)) + math.log(sigma(-beta * lost))) / 2
            for w, lost in both
        ],
        "robust": lambda: [
            (-(1 - epsilon) * math.log(sigma(beta * d)) + epsilon * math.log(sigma(-beta * d))) / (1 - 2 * epsilon)
            for d in deltas
        ],
        "bco_pair": lambda: [-math.log(sigma(beta * w)) - math.log(sigma(-beta * lost)) for w, lost in both],
        "sppo_hard": lambda: [(w - 1 / (2 * beta)) ** 2 + (lost + 1 / (2 * beta)) ** 2 for w, lost in both],
        "aot": lambda: [smoothed(beta * d) for d in transported],
        "aot_unpaired": lambda: [smoothed(beta * d) for d in unpaired],
        "apo_zero": lambda: [1 - sigma(beta * w) + sigma(beta * lost) for w, lost in both],
        "apo_down": lambda: [sigma(beta * w) + 1 - sigma(beta * (w - lost)) for w, lost in both],
        "discopop": lambda: [
            -math.log(sigma(beta * d)) * (1 - sigma(beta * d / tau)) + math.exp(-beta * d) * sigma(beta * d / tau)
            for d in deltas
        ],
        "sft": lambda: [-c / 4 for c in chosen],
        "sigmoid_norm": lambda: [-math.log(sigma(beta * d)) for d in a_token],
    }
    return formulas[name]()


def naive_gradient(name: LossType, options: LossOptions, *, side: str, pair: int) -> float:
    """By central differences."""
    sums = []
    for step in (1e-5, -1e-5):
        moved = {"chosen": list(CHOSEN), "rejected": list(REJECTED)}
        moved[side][pair] += step
        sums.append(sum(naive_losses(name, moved["chosen"], moved["rejected"], options)))
    return (sums[0] - sums[1]) / 2e-5


def check(name: LossType, options: LossOptions) -> None:
    pairs = made_pairs()
    losses = dpo_loss(pairs, options)
    expected = naive_losses(name, CHOSEN, REJECTED, options)
    torch.testing.assert_close(losses.detach(), torch.tensor(expected, dtype=torch.float64))
    gradients = torch.autograd.grad(losses.sum(), (pairs.chosen_B, pairs.rejected_B), materialize_grads=True)
    atol = 1e-7 + 1e-11 * sum(map(abs, expected))  # what differences of large sums lose
    for side, gradient in zip(("chosen", "rejected"), gradients, strict=True):
        slopes = [naive_gradient(name, options, side=side, pair=number) for number in range(len(CHOSEN))]
        torch.testing.assert_close(gradient, torch.tensor(slopes, dtype=torch.float64), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("beta", [0.05, 0.7])
def test_each_loss_and_gradient_is_its_formulas(name: LossType, beta: float) -> None:
    check(name, options_of(name, beta=beta))


@pytest.mark.parametrize("name", ["sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"])
def test_label_smoothing_is_the_chance_that_a_label_is_flipped(name: LossType) -> None:
    check(name, options_of(name, label_smoothing=0.2))


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("alpha", [0.5, 2.5])
def test_another_divergence_takes_the_log_ratios_place(name: LossType, divergence: FDivergence, alpha: float) -> None:
    # A small beta: forward KL's scores are exponentials, whose sigmoid is 0 or 1 in plain floats otherwise.
    check(name, options_of(name, f_divergence=divergence, f_alpha_divergence_coef=alpha, beta=1e-3))


@pytest.mark.parametrize("tau", [0.05, 3.0])
def test_discopops_temperature(tau: float) -> None:
    check("discopop", options_of("discopop", discopop_tau=tau))


def test_the_alpha_divergence_goes_over_into_the_reverse_kl() -> None:
    near = options_of("sigmoid", f_divergence="alpha_divergence", f_alpha_divergence_coef=1 + 1e-5)
    at = options_of("sigmoid", f_divergence="alpha_divergence", f_alpha_divergence_coef=1.0)
    plain = dpo_loss(made_pairs(), options_of("sigmoid"))
    torch.testing.assert_close(dpo_loss(made_pairs(), at), plain)
    torch.testing.assert_close(dpo_loss(made_pairs(), near), plain, rtol=1e-3, atol=1e-4)


def test_a_mixture_is_the_weighted_sum() -> None:
    mixture = options_of("sigmoid", "sft", "aot")
    mixed = dpo_loss(made_pairs(), replace(mixture, terms={"sigmoid": 0.8, "sft": 0.2, "aot": 2.0}))
    alone = [dpo_loss(made_pairs(), replace(mixture, terms={name: 1.0})) for name in ("sigmoid", "sft", "aot")]
    torch.testing.assert_close(mixed, 0.8 * alone[0] + 0.2 * alone[1] + 2.0 * alone[2])


def test_weighting_scales_each_pair_and_is_the_product_of_both_sides() -> None:
    weights = wpo_weight(torch.tensor([0.0, -1.0]), torch.tensor([-2.0, 0.5]))
    torch.testing.assert_close(weights, torch.tensor([math.exp(-2), math.exp(-0.5)]))
    pairs = made_pairs()
    weight_B = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    weighed = dpo_loss(replace(pairs, wpo_weight_B=weight_B), options_of("sigmoid", use_weighting=True))
    torch.testing.assert_close(weighed, dpo_loss(pairs, options_of("sigmoid")) * weight_B)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("ratios", [(1e4, -1e4), (-1e4, 1e4), (-1e4, -1e4), (1e4, 1e4)], ids=str)
def test_extreme_log_ratios_have_finite_losses_and_gradients(
    name: LossType, divergence: FDivergence, ratios: tuple[float, float]
) -> None:
    chosen, rejected = (torch.tensor([ratio, 0.0], requires_grad=True) for ratio in ratios)
    zero, one = torch.zeros(2), torch.ones(2)
    pairs = PairLogProbs(chosen, rejected, zero, zero, one, one, chosen_nll_B=-chosen, wpo_weight_B=None)
    for tau in (0.05, 5.0):
        losses = dpo_loss(pairs, options_of(name, f_divergence=divergence, beta=0.1, discopop_tau=tau))
        gradients = torch.autograd.grad(losses.sum(), (chosen, rejected), materialize_grads=True)
        assert losses.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_hopeless_pair_keeps_its_full_gradient() -> None:
    chosen = torch.tensor([-5_000.0], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    losses = dpo_loss(PairLogProbs(chosen, zero, zero, zero, one, one, zero, None), options_of("sigmoid", beta=0.1))
    (gradient,) = torch.autograd.grad(losses.sum(), chosen)
    assert (losses.item(), gradient.item()) == (pytest.approx(500.0), pytest.approx(-0.1))


AT_REFERENCE = {
    "sigmoid": math.log(2),
    "sigmoid_norm": math.log(2),
    "hinge": 1.0,
    "ipo": (1 / 0.6) ** 2,
    "nca_pair": 2 * math.log(2),
    "robust": math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo_hard": 2 * (0.5 / 0.3) ** 2,
    "aot": math.log(2),
    "aot_unpaired": math.log(2),
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": (math.log(2) + 1) / 2,
    "exo_pair": (math.log(0.5 / 0.9) + math.log(0.5 / 0.1)) / 2,
}


@pytest.mark.parametrize("name", AT_REFERENCE)
def test_a_policy_equal_to_its_reference_costs_the_closed_form(name: LossType) -> None:
    at_reference = loss_at_reference(options_of(name))
    assert at_reference is not None
    assert at_reference.value == pytest.approx(AT_REFERENCE[name])
    pairs = made_pairs()
    equal = replace(pairs, reference_chosen_B=pairs.chosen_B, reference_rejected_B=pairs.rejected_B)
    torch.testing.assert_close(dpo_loss(equal, options_of(name)), torch.full((4,), AT_REFERENCE[name]).double())


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_every_divergence_scores_the_reference_zero(divergence: FDivergence) -> None:
    at_reference = loss_at_reference(options_of("sigmoid", f_divergence=divergence))
    assert at_reference is not None
    assert at_reference.value == pytest.approx(math.log(2))


@pytest.mark.parametrize("options", [options_of("sigmoid", "sft"), options_of("sigmoid", use_weighting=True)])
def test_what_depends_on_the_pair_has_no_value_at_the_reference(options: LossOptions) -> None:
    assert loss_at_reference(options) is None


# The others pull both sides one way, or, as DiscoPOP near a margin of 0, have a valley elsewhere.
@pytest.mark.parametrize(
    "name", ["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "bco_pair", "sppo_hard", "aot", "apo_zero"]
)
def test_a_gradient_step_raises_the_chosen_and_lowers_the_rejected(name: LossType) -> None:
    chosen, rejected = torch.tensor([0.1], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    losses = dpo_loss(PairLogProbs(chosen, rejected, zero, zero, one, one, zero, None), options_of(name))
    gradients = torch.autograd.grad(losses.sum(), (chosen, rejected))
    assert gradients[0].item() < 0 < gradients[1].item()


def test_only_the_coupled_losses_depend_on_who_else_is_there() -> None:
    for name in LOSSES:
        together = dpo_loss(made_pairs(), options_of(name)).sum()
        alone = torch.stack([dpo_loss(only(number), options_of(name)).sum() for number in range(4)]).sum()
        assert torch.allclose(together, alone) == (name not in COUPLED)


def only(number: int) -> PairLogProbs:
    pairs = made_pairs()
    columns: dict[str, Tensor] = {
        field.name: getattr(pairs, field.name)[number : number + 1]
        for field in fields(pairs)
        if field.name != "wpo_weight_B"
    }
    return PairLogProbs(**columns, wpo_weight_B=None)


def test_the_names_are_the_wires() -> None:
    assert tuple(LOSSES) == get_args(LossType) == get_args(fine_tuning.LossType)
    assert get_args(fine_tuning.FDivergence) == DIVERGENCES
