"""Attention over packed pairs: each pair is `[prompt | chosen | rejected]`, its prompt computed once.

Chosen attends to the prompt and itself, rejected to the prompt and itself, nothing to another pair (arXiv:2410.20305).
Registered as an attention implementation of transformers and not as a mask, so the model builds no mask and hands the
`segments` given to its forward through to `packed_pairs_attention`.

H = heads, N = packed tokens, E = head size
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

PACKED_PAIRS = "packed_pairs"


@dataclass(frozen=True, slots=True)
class Segment:
    """One pair's token counts in the packed row, in this order."""

    prompt: int
    chosen: int
    rejected: int


class NotServedPacked(ValueError):
    """The model asks its attention for something that the packed layout does not compute."""


@contextmanager
def attend_packed(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's attention layers work on packed pairs while the context lasts."""
    AttentionInterface.register(PACKED_PAIRS, packed_pairs_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = PACKED_PAIRS
    try:
        yield
    finally:
        model.config._attn_implementation = before


def packed_pairs_attention(
    module: nn.Module,
    query_1HNE: Tensor,
    key_1HNE: Tensor,
    value_1HNE: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: tuple[Segment, ...],
    longest_row: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each pair; soft caps, attention sinks and windows shorter than a pair are refused.

    Returns: (1, N, H, E), as transformers wants it, and no attention weights.
    Raises: NotServedPacked.
    """
    if attention_mask is not None or softcap is not None or s_aux is not None:
        raise NotServedPacked("packed attention has no masks, soft caps or sinks")
    if sliding_window is not None and sliding_window < longest_row:
        raise NotServedPacked(f"a pair of {longest_row} tokens is longer than the model's window of {sliding_window}")
    outputs, start = [], 0
    for segment in segments:
        after_prompt, after_chosen = start + segment.prompt, start + segment.prompt + segment.chosen
        end = after_chosen + segment.rejected
        if after_chosen > start:
            outputs.append(_attend_causally(query_1HNE, key_1HNE, value_1HNE, slice(start, after_chosen), scaling))
        if segment.rejected:
            seen = (slice(start, after_prompt), slice(after_chosen, end))
            outputs.append(
                scaled_dot_product_attention(
                    query_1HNE[:, :, after_chosen:end],
                    torch.cat([key_1HNE[:, :, part] for part in seen], dim=2),
                    torch.cat([value_1HNE[:, :, part] for part in seen], dim=2),
                    attn_mask=_lower_right_causal(segment, query_1HNE.device),
                    scale=scaling,
                    enable_gqa=True,
                )
            )
        start = end
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend_causally(query: Tensor, key: Tensor, value: Tensor, row: slice, scaling: float | None) -> Tensor:
    query_row, key_row, value_row = query[:, :, row], key[:, :, row], value[:, :, row]
    return scaled_dot_product_attention(query_row, key_row, value_row, is_causal=True, scale=scaling, enable_gqa=True)


def _lower_right_causal(segment: Segment, device: torch.device) -> Tensor:
    """Rejected token i sees the whole prompt and rejected tokens 0 to i."""
    shape = (segment.rejected, segment.prompt + segment.rejected)
    return torch.ones(shape, dtype=torch.bool, device=device).tril(segment.prompt)
