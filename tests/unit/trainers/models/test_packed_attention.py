"""Packed attention against plain attention under a dense mask; and that no call allocates anything like such a mask."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.models.packed_attention_cpu import attend_on_cpu
from trainers.models.packed_attention_cuda import attend_on_cuda, gather_keys, lay_out_sequences
from trainers.models.packed_segments import Segment

HEADS, KEY_HEADS, HEAD_SIZE = 4, 2, 8
SEGMENTS = (Segment(5, 3, 7), Segment(0, 4, 2), Segment(6, 0, 3), Segment(2, 3, 0), Segment(0, 0, 1), Segment(9, 0, 0))


def dense_mask(segments: tuple[Segment, ...]) -> Tensor:
    """True where row attends to column, told token by token."""
    tokens = [
        (pair, side)
        for pair, segment in enumerate(segments)
        for side, count in (("shared", segment.shared), ("chosen", segment.chosen), ("rejected", segment.rejected))
        for _ in range(count)
    ]
    mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for query, (pair, side) in enumerate(tokens):
        for key in range(query + 1):
            mask[query, key] = tokens[key][0] == pair and tokens[key][1] in ("shared", side)
    return mask


def projections(tokens: int, *, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Query, key and value, laid out as a model's projections leave them."""
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(1, tokens, heads, HEAD_SIZE, generator=generator, dtype=torch.float64)
        .to(device, dtype)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def with_gradients(attended: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    upstream = torch.linspace(-1, 1, attended.numel(), dtype=attended.dtype, device=attended.device)
    return [attended, *torch.autograd.grad((attended * upstream.view_as(attended)).sum(), inputs)]


def naive(inputs: list[Tensor], scale: float) -> Tensor:
    mask = dense_mask(SEGMENTS).to(inputs[0].device)
    return scaled_dot_product_attention(*inputs, attn_mask=mask, scale=scale, enable_gqa=True).transpose(1, 2)


def test_the_cpu_attends_and_learns_as_under_a_dense_mask() -> None:
    inputs = projections(len(dense_mask(SEGMENTS)), dtype=torch.float64)
    ours = with_gradients(attend_on_cpu(*inputs, SEGMENTS, 0.3), inputs)
    for mine, expected in zip(ours, with_gradients(naive(inputs, 0.3), inputs), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


def test_half_precision_is_joined_in_float32() -> None:
    inputs = projections(len(dense_mask(SEGMENTS)), dtype=torch.bfloat16)
    ours = with_gradients(attend_on_cpu(*inputs, SEGMENTS, 0.3), inputs)
    for mine, expected in zip(ours, with_gradients(naive(inputs, 0.3), inputs), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, expected, rtol=0.05, atol=0.05)


def test_the_gpus_sequences_spell_the_same_mask() -> None:
    sequences = lay_out_sequences(SEGMENTS, torch.device("cpu"))
    queries, keys = sequences.query_starts.tolist(), sequences.key_starts.tolist()
    spelt = torch.zeros_like(dense_mask(SEGMENTS))
    for number in range(len(queries) - 1):
        rows = range(queries[number], queries[number + 1])
        seen = sequences.key_index_K[keys[number] : keys[number + 1]]
        for place, row in enumerate(rows):  # causal, aligned to the lower right
            spelt[row, seen[: len(seen) - len(rows) + place + 1]] = True
    assert torch.equal(spelt, dense_mask(SEGMENTS))
    assert queries[-1] == len(spelt)
    assert (sequences.longest_query, sequences.longest_key) == (9, 12)


def test_keys_are_gathered_and_their_gradients_brought_back() -> None:
    sequences = lay_out_sequences(SEGMENTS, torch.device("cpu"))
    keys = torch.randn(len(dense_mask(SEGMENTS)), KEY_HEADS, HEAD_SIZE, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(len(sequences.key_index_K), KEY_HEADS, HEAD_SIZE, dtype=torch.float64)
    indexed = keys[sequences.key_index_K]
    gathered = gather_keys(keys, sequences)
    assert torch.equal(gathered, indexed)
    [expected] = torch.autograd.grad(indexed, keys, upstream)
    [mine] = torch.autograd.grad(gathered, keys, upstream)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_attends_and_learns_as_under_a_dense_mask() -> None:
    inputs = projections(len(dense_mask(SEGMENTS)), dtype=torch.bfloat16, device="cuda")
    ours = with_gradients(attend_on_cuda(*inputs, SEGMENTS, 0.3), inputs)
    for mine, expected in zip(ours, with_gradients(naive(inputs, 0.3), inputs), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0.05, atol=0.05)


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that any result had."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple | list) else (result,)
        self.numbers = max([self.numbers, *(one.numel() for one in results if isinstance(one, Tensor))])
        return result


def test_a_long_pair_allocates_nothing_quadratic() -> None:
    segments = (Segment(2_000, 500, 500),)
    inputs = projections(3_000, dtype=torch.float32)
    with LargestTensor() as largest:
        with_gradients(attend_on_cpu(*inputs, segments, None), inputs)
    assert largest.numbers == 3_000 * HEADS * HEAD_SIZE
