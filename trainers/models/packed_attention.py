"""Attention over packed pairs: each pair is `[shared | chosen | rejected]`, what both sides begin with computed once.

Chosen attends to the shared tokens and itself, rejected to the shared tokens and itself, nothing to another pair
(arXiv:2410.20305). Registered as an attention implementation of transformers and not as a mask, so the model builds no
mask and hands the `segments` given to its forward through to `packed_pairs_attention`.

H = heads, N = packed tokens, E = head size
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from trainers.models.packed_attention_cpu import attend_on_cpu
from trainers.models.packed_attention_cuda import attend_on_cuda
from trainers.models.packed_segments import Segment

PACKED_PAIRS = "packed_pairs"
WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Kinds of layers that look back less far, and where a config says how far."""


class NotServedPacked(ValueError):
    """The model asks its attention for something that the packed layout does not compute."""


def refuse_short_windows(config: PreTrainedConfig, *, longest_row: int) -> None:
    """Refuse a model whose windows lie in its mask alone, of which packed attention hears nothing.

    Raises: NotServedPacked.
    """
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or WINDOWS
    is_switched_off = getattr(text, "use_sliding_window", True) is False
    for kind, name in WINDOWS.items():
        window = getattr(text, name, None)
        if kind in kinds and window and window < longest_row and not (is_switched_off and name == "sliding_window"):
            raise NotServedPacked(_past_window(longest_row, window))


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
        raise NotServedPacked(_past_window(longest_row, sliding_window))
    if query_1HNE.is_cuda:
        if query_1HNE.dtype.itemsize != 2:
            raise NotServedPacked(
                'packed attention on a GPU computes in half precision alone; set method.dpo.precision to "bf16"'
            )
        return attend_on_cuda(query_1HNE, key_1HNE, value_1HNE, segments, scaling), None
    return attend_on_cpu(query_1HNE, key_1HNE, value_1HNE, segments, scaling), None


def _past_window(longest_row: int, window: int) -> str:
    return f"a pair of {longest_row} tokens is longer than the model's window of {window}"
