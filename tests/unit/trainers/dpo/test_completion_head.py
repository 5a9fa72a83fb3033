"""The head in chunks against the whole tensor: log-probs, argmaxes, collisions and the hidden states' gradient."""

import pytest
import torch

from trainers.dpo import completion_head
from trainers.dpo.completion_head import score_tokens
from trainers.dpo.log_probs import log_collisions, token_log_probs


@pytest.mark.parametrize("positions_a_chunk", [1, 3, 100])
@pytest.mark.parametrize("with_collisions", [False, True])
def test_chunks_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, positions_a_chunk: int, with_collisions: bool
) -> None:
    monkeypatch.setitem(completion_head.CHUNK_BYTES, "cpu", positions_a_chunk * 4 * 11)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).requires_grad_()
    weight, targets = torch.randn(11, 5, generator=generator), torch.randint(11, (7,), generator=generator)
    upstream = torch.randn(7, generator=generator)

    scores = score_tokens(hidden, weight, targets, with_collisions=with_collisions)
    logits = hidden @ weight.T
    log_probs, is_argmax = token_log_probs(logits, targets)
    torch.testing.assert_close(scores.log_probs_M, log_probs)
    assert torch.equal(scores.is_argmax_M, is_argmax)
    ours, expected = (torch.autograd.grad(found @ upstream, hidden)[0] for found in (scores.log_probs_M, log_probs))
    torch.testing.assert_close(ours, expected)

    collisions = logits.softmax(-1).square().sum(-1).log() if with_collisions else torch.empty(0)
    torch.testing.assert_close(scores.log_collisions_M, collisions.detach())
    assert not scores.log_collisions_M.requires_grad


def test_collisions_need_no_gradient_to_be_told() -> None:
    with torch.no_grad():
        scores = score_tokens(torch.eye(3), 200 * torch.eye(3), torch.arange(3), with_collisions=True)
    torch.testing.assert_close(scores.log_collisions_M, torch.zeros(3))
    torch.testing.assert_close(scores.log_collisions_M, log_collisions(200 * torch.eye(3)))


def test_a_uniform_head_collides_once_in_its_vocabulary() -> None:
    assert log_collisions(torch.zeros(1, 50)).exp().item() == pytest.approx(1 / 50)


def test_of_equally_likely_tokens_the_first_alone_is_the_argmax() -> None:
    targets = torch.arange(4)
    head = torch.tensor([[1.0], [3.0], [3.0], [3.0]])
    scores = score_tokens(torch.ones(4, 1), head, targets)
    assert scores.is_argmax_M.tolist() == [False, True, False, False]
    assert torch.equal(scores.is_argmax_M, token_log_probs(torch.ones(4, 1) @ head.T, targets)[1])
