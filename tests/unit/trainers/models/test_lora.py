"""The policy and its reference."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save
from transformers import (
    Llama4ForCausalLM,
    Llama4TextConfig,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.tiny_model import SIZES, tiny_llama
from tests.tiny_runs import LORA
from trainers.checkpoints import stored_file
from trainers.errors import InvalidLoraTargets, UnusableAdapter
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, InitialAdapter, Policy, add_lora, read_adapter

TOKENS = torch.tensor([[1, 40, 41, 42, 43]])
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "auto_mapping": {"x": "y"}}


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = policy.model(input_ids=TOKENS).logits
    return result


def initial_adapter() -> InitialAdapter:
    """An adapter whose product is not zero."""
    policy = add_lora(
        tiny_llama(),
        LORA.model_copy(update={"r": 2, "target_modules": ("q_proj",)}),
        initial=None,
        reference="initial",
        seed=1,
    )
    weights = {name: torch.full_like(weight, 0.3) for name, weight in policy.adapter_weights().items()}
    content = save(weights)
    return read_adapter(json.dumps(CONFIG).encode(), content, sha256=stored_file("", content).sha256)


def test_a_fresh_policy_is_its_reference_and_the_seed_makes_its_adapter() -> None:
    policy = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=1)
    with torch.no_grad():
        base = tiny_llama()(input_ids=TOKENS).logits
    assert torch.equal(logits(policy), base)
    again = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=1)
    other = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=2)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters(), strict=True))


def test_the_reference_stays_where_training_began() -> None:
    policy = add_lora(tiny_llama(), LORA, initial=initial_adapter(), reference="initial", seed=1)
    began = logits(policy)
    trained = policy.parameters()
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1)
    assert not torch.equal(logits(policy), began)
    with policy.as_reference():
        assert torch.equal(logits(policy), began)
    assert [id(parameter) for parameter in policy.parameters()] == [id(parameter) for parameter in trained]


def test_the_base_reference_is_the_model_without_any_adapter() -> None:
    policy = add_lora(tiny_llama(), LORA, initial=initial_adapter(), reference="base", seed=1)
    with torch.no_grad():
        base = tiny_llama()(input_ids=TOKENS).logits
    with policy.as_reference():
        assert torch.equal(logits(policy), base)
    assert not torch.equal(logits(policy), base)
    assert not policy.starts_at_reference


def test_dropout_is_on_only_where_asked() -> None:
    lora = LORA.model_copy(update={"dropout": 0.5})
    policy = add_lora(tiny_llama(), lora, initial=initial_adapter(), reference="initial", seed=1)
    still = logits(policy)
    assert torch.equal(logits(policy), still)
    with policy.with_dropout():
        assert not torch.equal(logits(policy), still)
    assert torch.equal(logits(policy), still)


@pytest.mark.parametrize("use_dora", [False, True])
def test_dropout_reaches_dora_and_plain_lora(use_dora: bool) -> None:
    lora = LORA.model_copy(update={"dropout": 0.5, "use_dora": use_dora})
    policy = add_lora(tiny_llama(), lora, initial=None, reference="initial", seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    still = logits(policy)
    torch.manual_seed(1)
    with policy.with_dropout():
        one, other = logits(policy), logits(policy)
    assert not torch.equal(one, other)
    assert torch.equal(logits(policy), still)
    assert not any(module.training for module in policy.model.modules())


def test_dora_layers_are_left_to_peft() -> None:
    policy = add_lora(
        tiny_llama(), LORA.model_copy(update={"use_dora": True}), initial=None, reference="initial", seed=1
    )
    assert fuse_lora_layers(policy.model) == 0
    with torch.no_grad():
        base = tiny_llama()(input_ids=TOKENS).logits
    torch.testing.assert_close(logits(policy), base)
    assert any("lora_magnitude_vector" in name for name in policy.adapter_weights())


def read(**settings: object) -> InitialAdapter:
    content = save({})
    return read_adapter(json.dumps(CONFIG | settings).encode(), content, sha256=stored_file("", content).sha256)


def test_a_dora_adapter_is_read_as_one_and_tells_its_shape() -> None:
    adapter = read(use_dora=True)
    own = LORA.model_copy(update={"r": 2, "alpha": 4, "use_dora": True, "target_modules": ("q_proj",)})
    assert adapter.parameters(dropout=0.0) == own
    assert adapter.differences(own) == []
    assert adapter.differences(own.model_copy(update={"use_dora": False})) == ["use_dora is True, not False"]


@pytest.mark.parametrize("targets", ["all-linear", ("k_proj", "q_proj")])
def test_layers_are_compared_by_name_and_in_any_order(targets: str | tuple[str, ...]) -> None:
    told = LORA.model_copy(update={"r": 2, "alpha": 4, "target_modules": targets})
    assert read(target_modules=["q_proj", "k_proj"]).differences(told) == []


def test_fused_experts_are_told_and_not_compared() -> None:
    adapter = read(target_parameters=["gate_up_proj"])
    assert adapter.parameters(dropout=0.0).target_modules == ("gate_up_proj", "q_proj")
    told = LORA.model_copy(update={"r": 2, "alpha": 4, "target_modules": ("q_proj", "gate_proj", "up_proj")})
    assert adapter.differences(told) == []


def test_only_what_shapes_an_adapter_is_taken_from_its_config() -> None:
    assert initial_adapter().config.auto_mapping is None


@pytest.mark.parametrize(
    ("config", "weights", "reason"),
    [
        (b"{", save({}), "cannot be read"),
        (b'{"peft_type": "IA3"}', save({}), "IA3"),
        (json.dumps(CONFIG).encode(), b"not safetensors", "cannot be read"),
    ],
    ids=["not JSON", "not LoRA", "not safetensors"],
)
def test_a_strange_adapter_is_refused(config: bytes, weights: bytes, reason: str) -> None:
    with pytest.raises(UnusableAdapter, match=reason):
        read_adapter(config, weights, sha256=stored_file("", weights).sha256)


def test_an_adapter_of_another_shape_is_refused() -> None:
    adapter = initial_adapter()
    wrong = {name: torch.zeros(3, 3) for name in adapter.weights}
    with pytest.raises(UnusableAdapter, match="does not fit"):
        add_lora(tiny_llama(), LORA, initial=InitialAdapter(adapter.config, wrong), reference="initial", seed=1)


def test_an_adapter_with_other_names_is_refused() -> None:
    adapter = initial_adapter()
    wrong = {name.replace("q_proj", "k_proj"): weight for name, weight in adapter.weights.items()}
    with pytest.raises(UnusableAdapter, match="does not fit"):
        add_lora(tiny_llama(), LORA, initial=InitialAdapter(adapter.config, wrong), reference="initial", seed=1)


@pytest.mark.parametrize(
    ("settings", "carried"),
    [
        ({"modules_to_save": ["lm_head"]}, r"model\.lm_head\.weight"),
        ({"bias": "lora_only"}, r"q_proj\.base_layer\.bias"),
    ],
    ids=["modules_to_save", "bias"],
)
def test_an_adapter_that_carries_weights_of_the_base_is_refused(
    settings: dict[str, Any], carried: str, tmp_path: Path
) -> None:
    base = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, **SIZES))
    with pytest.raises(UnusableAdapter, match=rf"weights of the model itself: .*{carried}; merge it"):
        read_saved(base, tmp_path, LoraConfig(target_modules=["q_proj"], **settings))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA"])
def test_an_adapter_whose_start_was_taken_out_of_its_base_is_refused(init: Any, tmp_path: Path) -> None:
    config = LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=init)
    with pytest.raises(UnusableAdapter, match=f'"{init}", which changes the base .* convert it by PEFT'):
        read_saved(tiny_llama(), tmp_path, config)


@pytest.mark.parametrize("init", ["corda", "loftq", "lora_ga", "of a later PEFT"])
def test_an_init_that_is_not_known_to_leave_the_base_alone_is_refused(init: str) -> None:
    with pytest.raises(UnusableAdapter, match=f'"{init}", which changes the base'):
        read(init_lora_weights=init)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "mica"])
def test_an_init_that_leaves_the_base_alone_gives_the_adapters_own_model(init: Any, tmp_path: Path) -> None:
    theirs = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=init))
    theirs.save_pretrained(str(tmp_path))
    assert_starts_from(read_folder(tmp_path), theirs(input_ids=TOKENS).logits)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights:UserWarning")  # PEFT, while it converts
def test_a_pissa_adapter_that_peft_converted_is_taken(tmp_path: Path) -> None:
    first, converted = tmp_path / "first", tmp_path / "converted"
    theirs = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights="pissa"))
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(str(first))
    theirs.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    expected = theirs(input_ids=TOKENS).logits
    theirs.save_pretrained(str(converted), path_initial_model_for_weight_conversion=str(first))
    assert_starts_from(read_folder(converted), expected)


def assert_starts_from(adapter: InitialAdapter, expected: torch.Tensor) -> None:
    lora = adapter.parameters(dropout=0.0)
    policy = add_lora(tiny_llama(), lora, initial=adapter, reference="initial", seed=1)
    torch.testing.assert_close(logits(policy), expected.detach(), rtol=1e-4, atol=1e-5)


def read_saved(base: PreTrainedModel, folder: Path, config: LoraConfig) -> InitialAdapter:
    """As PEFT itself makes and writes it."""
    get_peft_model(base, config).save_pretrained(str(folder))
    return read_folder(folder)


def read_folder(folder: Path) -> InitialAdapter:
    content = (folder / ADAPTER_WEIGHTS).read_bytes()
    return read_adapter((folder / ADAPTER_CONFIG).read_bytes(), content, sha256=stored_file("", content).sha256)


def test_a_target_may_be_named_by_the_end_of_its_path() -> None:
    lora = LORA.model_copy(update={"target_modules": ("self_attn.v_proj",)})
    policy = add_lora(tiny_llama(), lora, initial=None, reference="initial", seed=1)
    assert len(policy.parameters()) == 4


@pytest.mark.filterwarnings("ignore::UserWarning")  # Mamba's, of missing CUDA kernels
def test_layers_that_peft_cannot_adapt_are_the_users_fault() -> None:
    config = MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(InvalidLoraTargets, match="cannot be adapted"):
        add_lora(MambaForCausalLM(config), LORA, initial=None, reference="initial", seed=1)


def test_a_router_that_returns_more_than_a_product_is_no_target() -> None:
    config = Llama4TextConfig(vocab_size=64, head_dim=8, num_local_experts=2, intermediate_size_mlp=48, **SIZES)
    named = LORA.model_copy(update={"target_modules": ("router",)})
    with pytest.raises(InvalidLoraTargets, match=r'"router"; it has .*k_proj, o_proj'):
        add_lora(Llama4ForCausalLM(config), named, initial=None, reference="initial", seed=1)
    policy = add_lora(Llama4ForCausalLM(config), LORA, initial=None, reference="initial", seed=1)
    assert not any("router" in name for name in policy.adapter_weights())


def test_the_head_is_no_target() -> None:
    lora = LORA.model_copy(update={"target_modules": ("lm_head",)})
    with pytest.raises(InvalidLoraTargets, match='"lm_head"'):
        add_lora(tiny_llama(), lora, initial=None, reference="initial", seed=1)
