"""Packed attention on a GPU: one flash call over sequences of unlike lengths (`varlen_attn`), half precision.

Each part of the row is a sequence of queries; its keys are the tokens that it sees before itself, gathered, and itself.
Flash attention's causal mask is aligned to the lower right, so the last query sees the last key.

H = heads, N = packed tokens, K = gathered keys, E = head size, S = sequences
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from trainers.models.packed_segments import Segment, attending_rows

CAUSAL = (-1, 0)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Which keys each sequence of queries sees; the queries are the packed row itself, in order."""

    key_index_K: Tensor
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
    out_NHE = varlen_attn(
        query_1HNE[0].transpose(0, 1),
        key_1HNE[0].transpose(0, 1)[sequences.key_index_K],
        value_1HNE[0].transpose(0, 1)[sequences.key_index_K],
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        scale=scale,
        window_size=CAUSAL,
        enable_gqa=True,
    )
    assert isinstance(out_NHE, Tensor)
    return out_NHE[None]


@lru_cache(maxsize=2)
def lay_out_sequences(segments: tuple[Segment, ...], device: torch.device) -> Sequences:
    """Computed once a pass: every layer asks for the same."""
    key_index: list[int] = []
    query_lengths: list[int] = []
    key_lengths: list[int] = []
    for part in attending_rows(segments):
        keys = [*_indices(part.before), *_indices(part.rows)]
        key_index += keys
        query_lengths.append(len(_indices(part.rows)))
        key_lengths.append(len(keys))
    return Sequences(
        torch.tensor(key_index, device=device),
        _starts(query_lengths, device),
        _starts(key_lengths, device),
        max(query_lengths),
        max(key_lengths),
    )


def _indices(rows: slice | None) -> range:
    return range(0) if rows is None else range(rows.start, rows.stop)


def _starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
