"""Gradient checkpointing: layers keep their inputs alone, and the backward computes the rest a second time.

transformers' own switch works in training mode only, which would drop out in the base (a layer of OPT's asks itself),
and computes the second time after our contexts are left. Here a layer's forward is wrapped: it stays in evaluation mode
and is computed again exactly as it was, with the same attention and the same adapter dropout.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from trainers.models.last_layer import last_layer_of
from trainers.models.lora import Policy


def checkpoint_layers(policy: Policy) -> int:
    """Checkpoint every layer that transformers can checkpoint but for the last; return how many they are.

    The backward begins with the last one: it would be computed again while everything else is still there.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _as_it_is_now(policy)

    last = last_layer_of(policy.causal_lm())
    modules = [module for module in policy.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    layers = [module for module in modules if module is not last]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=contexts)
    return len(layers)


def _as_it_is_now(policy: Policy) -> AbstractContextManager[None]:
    """Return a context in which the policy attends and drops out as at this call."""
    model = policy.causal_lm()
    attention, is_dropping_out = model.config._attn_implementation, policy.is_dropping_out

    @contextmanager
    def restored() -> Iterator[None]:
        between = model.config._attn_implementation
        model.config._attn_implementation = attention
        try:
            with policy.with_dropout() if is_dropping_out else nullcontext():
                yield
        finally:
            model.config._attn_implementation = between

    return restored()
