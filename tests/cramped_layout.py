"""Packed layouts on a device that has memory for so many tokens of a pass and no more."""

from collections.abc import Callable, Sequence

import torch

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.packed_batch import HiddenStates, PackedLayout

States = Callable[[PackedLayout, Sequence[PairTokens]], HiddenStates]


def ask_a_gpu_for_too_much() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def ask_the_host_for_too_much() -> None:
    torch.empty(2**55)


def cramped(room_tokens: int, *, allocate: Callable[[], None], counts_all: bool = False) -> States:
    """Return `PackedLayout.states` that calls `allocate`, which raises, for passes of more tokens than that.

    Passes without gradient need little: they count only where all do.
    """
    roomy = PackedLayout.states

    def states(layout: PackedLayout, pairs: Sequence[PairTokens]) -> HiddenStates:
        if (counts_all or torch.is_grad_enabled()) and sum(pair.packed_length for pair in pairs) > room_tokens:
            allocate()
        return roomy(layout, pairs)

    return states
