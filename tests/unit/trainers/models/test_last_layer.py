"""In the last layer tokens that predict nothing cost no query, no output projection and no MLP."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from trainers.models.last_layer import last_layer_only_at

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {"llama": LlamaConfig(**SIZES, **HEADS), "qwen3": Qwen3Config(**SIZES, **HEADS)}
TOKENS, ROWS = 9, torch.tensor([3, 4, 8])


def new_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


@contextmanager
def counting_tokens(modules: dict[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Tokens that each module's weights were multiplied with."""
    counts: dict[str, int] = {}

    def count(name: str) -> object:
        return lambda _, inputs: counts.__setitem__(name, inputs[0].shape[1])

    handles = [module.register_forward_pre_hook(count(name)) for name, module in modules.items()]
    yield counts
    for handle in handles:
        handle.remove()


def states_and_gradient(model: PreTrainedModel, embedded_1NI: Tensor) -> tuple[Tensor, Tensor]:
    states_UI = model.base_model(inputs_embeds=embedded_1NI, use_cache=False).last_hidden_state[0, ROWS]
    [gradient] = torch.autograd.grad(states_UI.square().sum(), embedded_1NI)
    return states_UI, gradient


@pytest.mark.parametrize("architecture", CONFIGS)
def test_predicting_tokens_and_all_gradients_are_what_they_are_without(architecture: str) -> None:
    model = new_model(CONFIGS[architecture])
    embedded = torch.randn(1, TOKENS, 32, requires_grad=True)
    whole = states_and_gradient(model, embedded)
    with last_layer_only_at(model, ROWS):
        narrowed = states_and_gradient(model, embedded)
    torch.testing.assert_close(narrowed, whole)
    torch.testing.assert_close(states_and_gradient(model, embedded), whole, rtol=0, atol=0)  # as before once it is left


def test_the_others_meet_keys_and_values_alone() -> None:
    model = new_model(CONFIGS["llama"])
    first, last = model.base_model.layers
    watched = {
        "first": first.mlp.down_proj,
        "mlp": last.mlp.down_proj,
        "keys": last.self_attn.k_proj,
        "values": last.self_attn.v_proj,
    }
    with counting_tokens(watched) as counts, last_layer_only_at(model, ROWS), torch.no_grad():
        model.base_model(input_ids=torch.arange(TOKENS)[None], use_cache=False)
    assert counts == {"first": TOKENS, "mlp": len(ROWS), "keys": TOKENS, "values": TOKENS}


def test_a_layer_of_another_kind_is_left_alone() -> None:
    model = new_model(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4))
    with last_layer_only_at(model, ROWS), torch.no_grad():
        states = model.base_model(input_ids=torch.arange(TOKENS)[None], use_cache=False).last_hidden_state
    assert states.abs().sum(-1).gt(0).all()
