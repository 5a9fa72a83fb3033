"""Packed attention on a GPU: one flash call over sequences of unlike lengths (`varlen_attn`), half precision.

Each part of the row is a sequence of queries; its keys are the tokens that it sees before itself, gathered, and itself.
Flash attention's causal mask is aligned to the lower right, so the last query sees the last key.

H = heads, N = packed tokens, K = gathered keys, E = head size, S = sequences, T = tokens that are gathered twice
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from trainers.host_numbers import to_device
from trainers.models.packed_segments import Segment, attending_rows

CAUSAL = (-1, 0)
shares_heads_untold = "enable_gqa" not in inspect.signature(varlen_attn).parameters  # torch 2.11
attend_grouped: Callable[..., Any] = varlen_attn if shares_heads_untold else partial(varlen_attn, enable_gqa=True)
"""Queries may have several times the heads that keys and values have."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Which keys each sequence of queries sees; the queries are the packed row itself, in order."""

    key_index_K: Tensor
    own_place_N: Tensor
    """Where in K each token is a key of its own sequence."""
    twice_T: Tensor
    """Tokens that the rejected side sees too."""
    second_place_T: Tensor
    """Where in K those are keys of the rejected side's."""
    query_starts: Tensor
    """S + 1 of them, int32; the last is N."""
    key_starts: Tensor
    longest_query: int
    longest_key: int


def attend_on_cuda(
    query_1HNE: Tensor, key_1HNE: Tensor, value_1HNE: Tensor, segments: tuple[Segment, ...], scale: float | None
) -> Tensor:
    """Return (1, N, H, E)."""
    sequences = lay_out_sequences(segments, query_1HNE.device)
    out_NHE = attend_grouped(
        query_1HNE[0].transpose(0, 1),
        gather_keys(key_1HNE[0].transpose(0, 1), sequences),
        gather_keys(value_1HNE[0].transpose(0, 1), sequences),
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        scale=scale,
        window_size=CAUSAL,
    )
    assert isinstance(out_NHE, Tensor)
    return out_NHE[None]


def gather_keys(x_NHE: Tensor, sequences: Sequences) -> Tensor:
    """Return each sequence's keys, or values, end to end: (K, H, E)."""
    gathered: Tensor = _GatherKeys.apply(x_NHE, sequences)  # type: ignore[no-untyped-call]
    return gathered


class _GatherKeys(torch.autograd.Function):
    """Indexing whose gradient is gathered too: no token is there more than twice, so nothing is sorted or raced for."""

    @staticmethod
    def forward(ctx: Any, x_NHE: Tensor, sequences: Sequences) -> Tensor:
        ctx.sequences = sequences
        return x_NHE.index_select(0, sequences.key_index_K)

    @staticmethod
    def backward(ctx: Any, dy_KHE: Tensor) -> tuple[Tensor, None]:
        sequences = ctx.sequences
        dx_NHE = dy_KHE.index_select(0, sequences.own_place_N)
        seen_twice_THE = dx_NHE.index_select(0, sequences.twice_T)
        seen_twice_THE += dy_KHE.index_select(0, sequences.second_place_T)
        dx_NHE.index_copy_(0, sequences.twice_T, seen_twice_THE)
        return dx_NHE, None


@lru_cache(maxsize=2)
def lay_out_sequences(segments: tuple[Segment, ...], device: torch.device) -> Sequences:
    """Computed once a pass: every layer asks for the same."""
    key_index: list[int] = []
    own_place: list[int] = []
    twice: list[int] = []
    second_place: list[int] = []
    query_lengths: list[int] = []
    key_lengths: list[int] = []
    for part in attending_rows(segments):
        before, rows = _indices(part.before), _indices(part.rows)
        place = len(key_index)
        twice += before
        second_place += range(place, place + len(before))
        own_place += range(place + len(before), place + len(before) + len(rows))
        key_index += [*before, *rows]
        query_lengths.append(len(rows))
        key_lengths.append(len(before) + len(rows))
    return Sequences(
        key_index_K=to_device(key_index, device),
        own_place_N=to_device(own_place, device),
        twice_T=to_device(twice, device),
        second_place_T=to_device(second_place, device),
        query_starts=_starts(query_lengths, device),
        key_starts=_starts(key_lengths, device),
        longest_query=max(query_lengths),
        longest_key=max(key_lengths),
    )


def _indices(rows: slice | None) -> range:
    return range(0) if rows is None else range(rows.start, rows.stop)


def _starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    return to_device([0, *accumulate(lengths)], device, dtype=torch.int32)
