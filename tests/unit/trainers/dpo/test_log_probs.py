"""Log-probs against naive loops."""

import math

import pytest
import torch

from trainers.dpo.log_probs import sum_by_side, token_divergence, token_log_probs


def test_each_tokens_log_prob_is_its_share_of_the_vocabulary() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator)
    targets = torch.randint(11, (3, 6), generator=generator)
    naive = torch.zeros(3, 6)
    for row in range(3):
        for position in range(6):
            weights = [math.exp(logit) for logit in logits[row, position].tolist()]
            naive[row, position] = math.log(weights[targets[row, position]] / sum(weights))
    log_probs, _ = token_log_probs(logits, targets)
    torch.testing.assert_close(log_probs, naive)


def test_half_precision_logits_are_reduced_in_float32() -> None:
    logits = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(1)).bfloat16()
    log_probs, _ = token_log_probs(logits, torch.arange(4))
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, logits.double().log_softmax(-1)[range(4), range(4)].float())


def test_the_argmax_is_told() -> None:
    _, is_argmax = token_log_probs(torch.tensor([[0.0, 2.0], [0.0, 2.0]]), torch.tensor([1, 0]))
    assert is_argmax.tolist() == [True, False]


def test_sides_are_summed_apart_and_an_empty_one_is_zero() -> None:
    sums = sum_by_side(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1, 0, 3]))
    assert sums.tolist() == [1.0, 0.0, 14.0]


def test_divergence_is_the_exact_sum_over_the_vocabulary() -> None:
    policy, reference = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    p, q = policy[0].softmax(0).tolist(), reference[0].softmax(0).tolist()
    naive = sum(p_i * math.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True))
    assert token_divergence(policy, reference).item() == pytest.approx(naive, rel=1e-5)
    assert token_divergence(policy, policy).item() == 0.0
