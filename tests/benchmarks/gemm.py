"""How fast this machine multiplies matrices, and how many FLOPs a step needs: together the floor of a trainer's time.

`python -m tests.benchmarks.gemm` prints the peak in FLOP/s.
"""

import sys
import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig

from trainers.data.chat_tokens import PairTokens

SIZES = (1024, 2048, 3072)
TRIES = 5


def measure_peak() -> float:
    """The best fp32 rate of square products, FLOP/s."""
    return max(_rate(size) for size in SIZES for _ in range(TRIES))


def _rate(size: int) -> float:
    left, right = torch.randn(size, size), torch.randn(size, size)
    torch.mm(left, right)
    began = time.perf_counter()
    torch.mm(left, right)
    return 2 * size**3 / (time.perf_counter() - began)


def count_flops(pairs: Sequence[PairTokens], config: PreTrainedConfig, *, rank: int) -> float:
    """FLOPs of one epoch over prompt-shared pairs of a Llama, reference known: forward, and backward by frozen weights.

    Each frozen weight costs a product forward and one backward (its own gradient is not needed), each LoRA weight one
    forward and two backward, attention two forward and four backward, the head a product forward and one backward.
    In the last layer all but keys and values is needed at the tokens alone that predict one.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    keys = config.num_key_value_heads * config.head_dim
    of_keys = _of_linear([(hidden, keys)] * 2, rank)
    of_rest = _of_linear([(hidden, hidden)] * 2 + [(hidden, config.intermediate_size)] * 3, rank)
    tokens = sum(pair.packed_length for pair in pairs)
    predicted = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    linear = tokens * layers * (of_keys + of_rest) - max(0, tokens - predicted) * of_rest
    attention = 12 * hidden * layers * sum(_attended(pair) for pair in pairs)
    head = 4 * predicted * hidden * config.vocab_size
    return float(linear + attention + head)


def _of_linear(shapes: Sequence[tuple[int, int]], rank: int) -> float:
    """FLOPs a token."""
    return sum(4 * wide * high + 6 * rank * (wide + high) for wide, high in shapes)


def _attended(pair: PairTokens) -> float:
    """Query-key products that the causal mask lets through."""
    shared = len(pair.prompt) + pair.common_tokens
    rejected = len(pair.rejected) - pair.common_tokens
    return (len(pair.prompt) + len(pair.chosen)) ** 2 / 2 + rejected * shared + rejected**2 / 2


if __name__ == "__main__":
    sys.stdout.write(f"{measure_peak()}\n")
