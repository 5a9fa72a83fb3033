"""Packed attention on the CPU: torch's flash kernel on slices of the row, without masks or copies of keys.

Rejected tokens attend to the shared ones and to themselves in two kernel calls, joined by their log-normalisers as in
ring attention (arXiv:2310.01889): memory stays linear in a pair's length. Gradients are written into one tensor each;
autograd's own way back through a slice fills and adds a whole row for every slice.

H = heads, N = packed tokens, L = tokens of one call, E = head size
"""

from typing import Any

import torch
from torch import Tensor

from trainers.models.packed_segments import Attending, Segment, attending_rows

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend_on_cpu(
    query_1HNE: Tensor, key_1HNE: Tensor, value_1HNE: Tensor, segments: tuple[Segment, ...], scale: float | None
) -> Tensor:
    """Return (1, N, H, E)."""
    attended: Tensor = _PackedAttention.apply(query_1HNE, key_1HNE, value_1HNE, segments, scale)  # type: ignore[no-untyped-call]
    return attended


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segment, ...], scale: float | None
    ) -> Tensor:
        out_1NHE = query.new_empty(query.transpose(1, 2).shape)
        parts = tuple(attending_rows(segments))
        normalisers = []
        for part in parts:
            out_1HLE, normaliser_1HL = _attend(query, key, value, part, scale)
            out_1NHE[:, part.rows] = out_1HLE.transpose(1, 2)
            normalisers.append(normaliser_1HL)
        ctx.save_for_backward(query, key, value, out_1NHE, *normalisers)
        ctx.parts, ctx.scale = parts, scale
        return out_1NHE

    @staticmethod
    def backward(ctx: Any, upstream_1NHE: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out_1NHE, *normalisers = ctx.saved_tensors
        upstream, out = upstream_1NHE.transpose(1, 2), out_1NHE.transpose(1, 2)
        gradients = d_query, d_key, d_value = [torch.empty_like(tensor) for tensor in (query, key, value)]
        for part, normaliser in zip(ctx.parts, normalisers, strict=True):
            rows, before = part.rows, part.before
            of_rows = upstream[:, :, rows], query[:, :, rows], out[:, :, rows], normaliser
            mine = _gradients(*of_rows, key[:, :, rows], value[:, :, rows], causal=True, scale=ctx.scale)
            for gradient, part_of_it in zip(gradients, mine, strict=True):
                gradient[:, :, rows] = part_of_it
            if before is not None:
                seen = key[:, :, before], value[:, :, before]
                d_query_more, d_key_more, d_value_more = _gradients(*of_rows, *seen, causal=False, scale=ctx.scale)
                d_query[:, :, rows] += d_query_more
                d_key[:, :, before] += d_key_more
                d_value[:, :, before] += d_value_more
        return d_query, d_key, d_value, None, None


def _attend(query: Tensor, key: Tensor, value: Tensor, part: Attending, scale: float | None) -> tuple[Tensor, Tensor]:
    """Return the output (1, H, L, E) and the log-normaliser (1, H, L) of one part."""
    rows, before = part.rows, part.before
    query_L = query[:, :, rows]
    own, normaliser = _flash(query_L, key[:, :, rows], value[:, :, rows], 0.0, True, scale=scale)
    if before is None:
        return own, normaliser
    earlier, normaliser_before = _flash(query_L, key[:, :, before], value[:, :, before], 0.0, False, scale=scale)
    weight = (normaliser_before - normaliser).sigmoid()[..., None]
    joined = torch.lerp(own.to(weight.dtype), earlier.to(weight.dtype), weight)
    return joined, torch.logaddexp(normaliser, normaliser_before)


def _gradients(
    upstream: Tensor,
    query: Tensor,
    out: Tensor,
    normaliser: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of query, key and value, from some of the keys; `out` and `normaliser` are those over all keys."""
    d_query, d_key, d_value = _flash_backward(upstream, query, key, value, out, normaliser, 0.0, causal, scale=scale)
    return d_query, d_key, d_value
