"""Whether a model's logits are its head's product and nothing else: who multiplies by the head's weight alone knows of
no soft cap and no scale.

Seen in a pass that is made anyway, and to the last bit: a mild cap changes short texts' log-probs by less than two
layouts may differ by.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

WATCHED_TOKENS = 4
"""Of a pass's first row, which begins with tokens and not with padding: a cap or a scale is seen on each of them."""

CHANGES_STATES = "the model changes its last hidden states before its head"
CHANGES_LOGITS = "the model changes its head's logits, by a soft cap or a scale"


class NotAPlainHead(ValueError):
    """The model does something to its last hidden states or to its logits beside multiplying by its head."""


@dataclass(slots=True)
class _Pass:
    states: Tensor | None = None
    multiplied: Tensor | None = None
    product: Tensor | None = None


@contextmanager
def only_plain_heads(model: PreTrainedModel) -> Iterator[None]:
    """Refuse the model's next pass where there is more between its last hidden states and its logits than the head.

    Raises: NotAPlainHead, out of that pass.
    """
    seen = _Pass()

    def see_states(_: nn.Module, inputs: Any, output: Any) -> None:
        seen.states = output.last_hidden_state

    def see_product(_: nn.Module, inputs: tuple[Tensor, ...], product: Tensor) -> None:
        seen.multiplied, seen.product = inputs[0], product

    def compare(_: nn.Module, inputs: Any, output: Any) -> None:
        if not _is_same(seen.states, seen.multiplied):
            raise NotAPlainHead(CHANGES_STATES)
        if not _is_same(seen.product, output.logits):
            raise NotAPlainHead(CHANGES_LOGITS)

    with ExitStack() as stack:
        # OPT calls the decoder in its base, not the base.
        for module in {model.base_model, model.get_decoder()}:  # type: ignore[no-untyped-call]
            stack.callback(module.register_forward_hook(see_states).remove)
        stack.callback(_head(model).register_forward_hook(see_product).remove)
        stack.callback(model.register_forward_hook(compare).remove)
        yield


def _head(model: PreTrainedModel) -> nn.Module:
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head


def _is_same(one: Tensor | None, other: Tensor | None) -> bool:
    """Of the watched tokens, whatever the precision that the later one was brought to."""
    if one is None or other is None:
        return False
    first, second = one[0, :WATCHED_TOKENS], other[0, :WATCHED_TOKENS]
    return torch.equal(first.to(second.dtype), second)
