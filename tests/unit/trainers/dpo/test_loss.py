"""The losses against their formulas written out, their value at the reference, and the sign of their gradient."""

import math

import pytest
import torch

from trainers.dpo.loss import LogRatios, LossType, dpo_loss, loss_at_reference

LOSSES: tuple[LossType, ...] = ("sigmoid", "ipo", "hinge")


def ratios(chosen: list[float], rejected: list[float]) -> LogRatios:
    lengths = torch.tensor([4.0, 7.0, 2.0])[: len(chosen)]
    return LogRatios(torch.tensor(chosen), torch.tensor(rejected), lengths, lengths + 1)


def naive_loss(chosen: float, rejected: float, lengths: tuple[float, float], *, loss_type: str, beta: float) -> float:
    match loss_type:
        case "sigmoid":
            return -math.log(1 / (1 + math.exp(-beta * (chosen - rejected))))
        case "ipo":
            return (chosen / lengths[0] - rejected / lengths[1] - 1 / (2 * beta)) ** 2
        case _:
            return max(0.0, 1 - beta * (chosen - rejected))


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_each_pair_costs_what_a_naive_loop_says(loss_type: LossType, beta: float) -> None:
    chosen, rejected = [1.5, -2.0, 0.3], [0.2, 3.0, -9.0]
    losses = dpo_loss(ratios(chosen, rejected), loss_type=loss_type, beta=beta, label_smoothing=0.0)
    expected = [
        naive_loss(c, r, (length, length + 1), loss_type=loss_type, beta=beta)
        for c, r, length in zip(chosen, rejected, [4.0, 7.0, 2.0], strict=True)
    ]
    torch.testing.assert_close(losses, torch.tensor(expected))


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_a_policy_equal_to_its_reference_costs_the_closed_form(loss_type: LossType, label_smoothing: float) -> None:
    losses = dpo_loss(ratios([0.0], [0.0]), loss_type=loss_type, beta=0.1, label_smoothing=label_smoothing)
    assert losses.item() == pytest.approx(loss_at_reference(loss_type=loss_type, beta=0.1), rel=1e-6)


def test_the_sigmoid_losss_closed_form_is_ln_2() -> None:
    assert loss_at_reference(loss_type="sigmoid", beta=0.7) == math.log(2)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_a_gradient_step_raises_the_chosen_and_lowers_the_rejected(loss_type: LossType) -> None:
    chosen, rejected = torch.tensor([0.1], requires_grad=True), torch.tensor([0.4], requires_grad=True)
    one = torch.ones(1)
    losses = dpo_loss(LogRatios(chosen, rejected, one, one), loss_type=loss_type, beta=0.1, label_smoothing=0.0)
    torch.autograd.backward(losses.sum())
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() < 0 < rejected.grad.item()


def test_label_smoothing_is_the_chance_that_a_label_is_flipped() -> None:
    straight = dpo_loss(ratios([2.0], [-1.0]), loss_type="sigmoid", beta=0.5, label_smoothing=0.0)
    flipped = dpo_loss(ratios([-1.0], [2.0]), loss_type="sigmoid", beta=0.5, label_smoothing=0.0)
    smoothed = dpo_loss(ratios([2.0], [-1.0]), loss_type="sigmoid", beta=0.5, label_smoothing=0.2)
    torch.testing.assert_close(smoothed, 0.8 * straight + 0.2 * flipped)


def test_a_hopeless_pair_costs_a_finite_loss_with_a_full_gradient() -> None:
    chosen = torch.tensor([-5_000.0], requires_grad=True)
    one = torch.ones(1)
    losses = dpo_loss(LogRatios(chosen, torch.zeros(1), one, one), loss_type="sigmoid", beta=0.1, label_smoothing=0.0)
    torch.autograd.backward(losses.sum())
    assert losses.item() == pytest.approx(500.0)
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.1)
