"""Layers that are computed as one keep nothing of a pass that fails between them."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest
import torch
from transformers import PreTrainedModel

from tests.cramped_layout import ask_the_host_for_too_much
from tests.tiny_model import tiny_llama, tiny_qwen3
from tests.tiny_runs import LORA
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import Policy, add_lora
from trainers.pass_memory import is_out_of_memory

TOKENS = torch.tensor([[1, 40, 41, 42, 43]])


class Kept:
    """What autograd holds for the backward."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor.detach()  # a node's own output would be a circle that nobody collects


def runs_out_of_memory(policy: Policy) -> bool:
    """What the error holds is gone once this has returned."""
    try:
        policy.model(input_ids=TOKENS)
    except RuntimeError as error:
        return is_out_of_memory(error)
    return False


@pytest.mark.parametrize(
    ("make_base", "between"),
    [
        pytest.param(tiny_llama, "model.layers.1.mlp.act_fn", id="between gate and up"),
        pytest.param(tiny_qwen3, "model.layers.1.self_attn.k_norm", id="between key and value"),
    ],
)
def test_a_pass_that_runs_out_of_memory_leaves_nothing_of_its_graph(
    make_base: Callable[[], PreTrainedModel], between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = add_lora(make_base(), LORA, initial=None, reference="initial", seed=1)
    fuse_lora_layers(policy.model)
    kept: WeakSet[Kept] = WeakSet()

    def keep(tensor: torch.Tensor) -> Kept:
        held = Kept(tensor)
        kept.add(held)
        return held

    def run_out(*_: Any) -> None:
        assert kept, "the pass has begun"
        ask_the_host_for_too_much()

    with monkeypatch.context() as patched, torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held.tensor):
        patched.setattr(policy.causal_lm().get_submodule(between), "forward", run_out)
        assert runs_out_of_memory(policy)
    assert not kept
    assert policy.model(input_ids=TOKENS).logits.isfinite().all()
