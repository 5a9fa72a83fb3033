"""Log-probs against naive loops; the shift by one is where such code goes wrong."""

import math

import pytest
import torch

from trainers.dpo.log_probs import completion_log_probs, sum_by_side, token_divergence, token_log_probs


def test_each_completion_token_is_predicted_by_the_position_before_it() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator)
    token_ids = torch.randint(11, (3, 6), generator=generator)
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0]], dtype=torch.bool)
    expected = [0.0, 0.0, 0.0]
    for row in range(3):
        for position in range(1, 6):
            if mask[row, position]:
                weights = [math.exp(logit) for logit in logits[row, position - 1].tolist()]
                expected[row] += math.log(weights[token_ids[row, position]] / sum(weights))
    torch.testing.assert_close(completion_log_probs(logits, token_ids, mask), torch.tensor(expected))


def test_a_model_that_knows_the_next_token_is_certain() -> None:
    token_ids = torch.tensor([[3, 1, 4, 1, 5]])
    logits = torch.full((1, 5, 6), -100.0)
    for position in range(4):
        logits[0, position, token_ids[0, position + 1]] = 100.0
    mask = torch.tensor([[False, False, True, True, True]])
    assert completion_log_probs(logits, token_ids, mask).item() == pytest.approx(0.0, abs=1e-6)


def test_a_row_without_a_predictable_token_is_refused() -> None:
    mask = torch.tensor([[True, False, False]])
    with pytest.raises(ValueError, match="no completion token"):
        completion_log_probs(torch.zeros(1, 3, 5), torch.zeros(1, 3, dtype=torch.long), mask)


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
