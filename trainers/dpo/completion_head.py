"""Log-probs of completion tokens straight from hidden states: the `[tokens, vocabulary]` tensor never exists.

The head runs in chunks over the positions that predict a completion token. The gradient of a log-prob with respect to
its hidden state, W[target] - softmax(h W^T) W, does not depend on the loss, so it is computed in the forward while the
chunk's logits are at hand, and only scaled in the backward, as fused linear cross-entropy does (arXiv:2410.10989).

M = predicting positions, D = hidden size, V = vocabulary, K = positions of one chunk
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
"""Of float32 logits held at once. A GPU reads the whole head for every chunk: few rows would leave it waiting."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    log_probs_M: Tensor
    """log p(target), float32 nats, with gradient to the hidden states."""
    is_argmax_M: Tensor
    """bool: the target is the likeliest token, of equally likely ones the first. bf16 logits are often equal."""
    log_collisions_M: Tensor
    """log Σ p² over the vocabulary, float32, without gradient; empty where it was not asked for."""


def score_tokens(
    hidden_MD: Tensor, head_weight_VD: Tensor, target_M: Tensor, *, with_collisions: bool = False
) -> TokenScores:
    """Score each position's target token. The head's weight is frozen: no gradient reaches it."""
    scores = _ScoreTokens.apply(hidden_MD, head_weight_VD, target_M, with_collisions)  # type: ignore[no-untyped-call]
    return TokenScores(*scores)


class _ScoreTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, head_weight_VD: Tensor, target_M: Tensor, with_collisions: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_probs_M = hidden_MD.new_empty(len(hidden_MD), dtype=torch.float32)
        is_argmax_M = hidden_MD.new_empty(len(hidden_MD), dtype=torch.bool)
        log_collisions_M = log_probs_M.new_empty(len(hidden_MD) if with_collisions else 0)
        gradient_MD = torch.empty_like(hidden_MD) if ctx.needs_input_grad[0] else None
        for rows in _chunks(len(hidden_MD), head_weight_VD):
            target_K = target_M[rows]
            logits_KV = (hidden_MD[rows] @ head_weight_VD.T).float()
            target_logit_K = logits_KV.gather(-1, target_K[:, None])[:, 0]
            is_argmax_M[rows] = logits_KV.argmax(-1) == target_K
            log_normaliser_K = logits_KV.logsumexp(-1)
            log_probs_M[rows] = target_logit_K - log_normaliser_K
            if gradient_MD is None and not with_collisions:
                continue
            probs_KV = logits_KV.sub_(log_normaliser_K[:, None]).exp_()
            if with_collisions:
                log_collisions_M[rows] = 2 * torch.linalg.vector_norm(probs_KV, dim=-1).log()
            if gradient_MD is not None:
                gradient_MD[rows] = head_weight_VD[target_K] - probs_KV.to(head_weight_VD.dtype) @ head_weight_VD
        ctx.gradient_MD = gradient_MD
        ctx.mark_non_differentiable(is_argmax_M, log_collisions_M)
        return log_probs_M, is_argmax_M, log_collisions_M

    @staticmethod
    def backward(ctx: Any, upstream_M: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.gradient_MD * upstream_M[:, None].to(ctx.gradient_MD.dtype), None, None, None


def _chunks(positions: int, head_weight_VD: Tensor) -> list[slice]:
    rows = max(1, CHUNK_BYTES[head_weight_VD.device.type] // (4 * head_weight_VD.shape[0]))
    return [slice(start, start + rows) for start in range(0, positions, rows)]
