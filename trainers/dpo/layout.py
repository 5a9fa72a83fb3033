"""Choose the layout by trying it: packed where it gives what padded gives on the job's own pairs, padded elsewhere.

Mamba mixes neighbours, some models cap or window their attention, others take no extra argument: a list of names would
be wrong with the next release, a comparison is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.rounds import SMALL_PAIR
from trainers.dpo.scores import Layout
from trainers.errors import MORE_ROOM, ModelTooLarge, UnusableModel
from trainers.models.lora import Policy
from trainers.models.packed_attention import refuse_short_windows
from trainers.models.plain_head import only_plain_heads
from trainers.pass_memory import is_out_of_memory

COMPARED_PAIRS = 2
OUT_OF_MEMORY = f"out of memory on {COMPARED_PAIRS} short pairs: the model leaves no room to train it; {MORE_ROOM}"
LOOKED_AT_PAIRS = 64
"""The shortest of these are compared: a job's start waits for it."""
WHAT_MODELS_RAISE = (TypeError, ValueError, RuntimeError, AttributeError)
TOLERANCE_NATS = {torch.float32: 2e-3, torch.bfloat16: 0.25}
"""Per token: the two layouts add in another order."""


@dataclass(frozen=True, slots=True)
class ChosenLayout:
    layout: Layout
    why_padded: str | None
    """None: packed."""


def choose_layout(policy: Policy, pairs: Sequence[PairTokens], *, device: torch.device) -> ChosenLayout:
    """Compare both layouts' log-probs on a few short pairs; of the longest one its length is enough.

    Raises: ModelTooLarge, UnusableModel.
    """
    padded = PaddedLayout(policy, device)
    longest_row = max(pair.longest_row for pair in pairs)
    packed = PackedLayout(policy, device, longest_row=longest_row)
    short = sorted(pairs[:LOOKED_AT_PAIRS], key=lambda pair: pair.packed_length)[:COMPARED_PAIRS]
    try:
        refuse_short_windows(policy.causal_lm().config, longest_row=longest_row)
        difference = _compare(policy, packed, padded, short)
    # What a model that was not built for extra arguments raises; the padded layout has none.
    except WHAT_MODELS_RAISE as reason:
        if is_out_of_memory(reason):
            raise ModelTooLarge(OUT_OF_MEMORY) from reason
        if policy.sharded is not None:
            policy.sharded.reset()
        _check_padded(policy, padded, short)
        return ChosenLayout(padded, why_padded=str(reason))
    tolerance = TOLERANCE_NATS[policy.causal_lm().dtype]
    if not difference <= tolerance:  # so that NaN is a difference too
        why = f"log-probs differ by {difference:.2g} nats a token from the padded layout's"
        return ChosenLayout(padded, why_padded=why)
    return ChosenLayout(packed, why_padded=None)


def _compare(policy: Policy, packed: Layout, padded: Layout, pairs: Sequence[PairTokens]) -> float:
    """Raises: ModelTooLarge, on every worker when the base is sharded; whatever a model raises."""
    differences = []

    def make(compared: Sequence[PairTokens]) -> None:
        differences.append(_largest_difference(policy, packed, padded, compared))

    _make_together(policy, make, pairs)
    return differences[0]


def _check_padded(policy: Policy, padded: Layout, pairs: Sequence[PairTokens]) -> None:
    """Run it, which the comparison may not have come to. Raises: ModelTooLarge, UnusableModel."""

    def make(tried: Sequence[PairTokens]) -> None:
        padded.states(tried)

    try:
        _make_together(policy, make, pairs)
    except WHAT_MODELS_RAISE as reason:
        if is_out_of_memory(reason):
            raise ModelTooLarge(OUT_OF_MEMORY) from reason
        # A broken device, or a worker that is gone, is no fault of the model's.
        if isinstance(reason, torch.AcceleratorError) or policy.sharded is not None:
            raise
        raise UnusableModel(
            f"the model cannot be run with these adapters: {reason}; name other layers in "
            "method.dpo.lora.target_modules, or take another model"
        ) from reason


def _make_together(policy: Policy, make: Callable[[Sequence[PairTokens]], None], pairs: Sequence[PairTokens]) -> None:
    """Make passes without gradient, in step with the other workers when the base is sharded."""
    with torch.no_grad():
        if policy.sharded is None:
            make(pairs)
        else:
            fits = policy.sharded.attempt(partial(make, pairs), partial(make, [SMALL_PAIR]))
            if not policy.sharded.workers.all(fits):
                raise ModelTooLarge(OUT_OF_MEMORY)


def _largest_difference(policy: Policy, packed: Layout, padded: Layout, pairs: Sequence[PairTokens]) -> float:
    ours, _ = packed.states(pairs).log_probs()
    with only_plain_heads(policy.causal_lm()):
        theirs, _ = padded.states(pairs).log_probs()
    return float((ours - theirs).abs().max())
