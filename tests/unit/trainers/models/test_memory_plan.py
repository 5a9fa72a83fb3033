"""The plan on stated numbers, and the estimate beside what autograd really keeps."""

import pytest
import torch
from transformers import Gemma3nTextConfig, Gemma4TextConfig, MixtralConfig, PretrainedConfig

from tests.unit.trainers.dpo.test_packed_batch import CONFIGS, CPU, SIZES, make_pair, make_policy
from trainers.dpo.packed_batch import PackedLayout
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.memory_plan import ActivationBytes, MemoryPlan, estimate_activations, fits_whole, plan_memory

TEN_LAYERS = ActivationBytes(layer=1_000, between_layers=100, layers=10, outside=0)
"""11,000 bytes a token; 2,000 when checkpointed."""


@pytest.mark.parametrize(
    ("longest_pair", "room_bytes", "expected"),
    [
        pytest.param(300, 11_000 * 1_024, MemoryPlan(1_024, is_checkpointed=False), id="everything fits"),
        pytest.param(300, 11_000 * 1_023, MemoryPlan(512, is_checkpointed=False), id="half a pass fits"),
        pytest.param(300, 11_000 * 300, MemoryPlan(256, is_checkpointed=False), id="the longest pair fits"),
        pytest.param(300, 11_000 * 299, MemoryPlan(1_024, is_checkpointed=True), id="computed twice, it fits well"),
        pytest.param(300, 2_000 * 300, MemoryPlan(256, is_checkpointed=True), id="computed twice, it just fits"),
        pytest.param(300, 0, MemoryPlan(256, is_checkpointed=True), id="nothing fits"),
        pytest.param(4_000, 11_000 * 4_000, MemoryPlan(1_024, is_checkpointed=False), id="a pair longer than a pass"),
        pytest.param(4_000, 11_000 * 3_999, MemoryPlan(1_024, is_checkpointed=True), id="a long pair that does not"),
    ],
)
def test_layers_are_computed_twice_only_where_the_longest_pair_would_not_fit(
    longest_pair: int, room_bytes: int, expected: MemoryPlan
) -> None:
    free_bytes = -(-room_bytes * 10 // 8)
    plan = plan_memory(TEN_LAYERS, longest_pair=longest_pair, most_tokens=1_024, free_bytes=free_bytes)
    assert plan == expected


def test_a_base_is_whole_where_it_fits_beside_the_smallest_pass() -> None:
    free_bytes = (5_000_000 + 2_000 * 300) * 10 // 8
    assert fits_whole(5_000_000, TEN_LAYERS, longest_pair=300, free_bytes=free_bytes)
    assert not fits_whole(5_000_001, TEN_LAYERS, longest_pair=300, free_bytes=free_bytes)


def test_a_copy_of_adapted_experts_counts_for_each_layer_that_is_kept() -> None:
    activations = ActivationBytes(layer=1, between_layers=0, layers=4, outside=0, adapted=1_000)
    assert activations.of_pass(10, is_checkpointed=False) == 4 * (10 + 1_000)
    assert activations.of_pass(10, is_checkpointed=True) == 10 + 1_000


def test_where_layers_differ_the_largest_counts() -> None:
    def layer_bytes(global_head_dim: int) -> int:
        config = Gemma4TextConfig(**SIZES, global_head_dim=global_head_dim)
        return estimate_activations(config, dtype_bytes=2, is_padded=False).layer

    heads, kv_heads = SIZES["num_attention_heads"], SIZES["num_key_value_heads"]
    assert layer_bytes(64) - layer_bytes(SIZES["head_dim"]) == 2 * (2 * heads + 2 * kv_heads) * (64 - SIZES["head_dim"])


NEAR = {name: CONFIGS[name] for name in ("llama", "qwen2", "qwen3", "mixtral", "gpt_neox", "gpt2")}
NEAR["many experts"] = MixtralConfig(**SIZES, num_local_experts=64)
NEAR["gemma3n"] = Gemma3nTextConfig(
    **SIZES,
    vocab_size_per_layer_input=64,
    hidden_size_per_layer_input=8,
    num_kv_shared_layers=0,
    laurel_rank=4,
    layer_types=["full_attention"] * 2,
)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT, of Mixtral's experts
@pytest.mark.parametrize("name", NEAR)
def test_the_estimate_is_near_what_autograd_keeps(name: str) -> None:
    config: PretrainedConfig = NEAR[name]
    policy = make_policy(config)
    fuse_lora_layers(policy.model)
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    pairs = [make_pair(60, 20, 20, seed=1), make_pair(50, 40, 10, seed=2)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = PackedLayout(policy, CPU, longest_row=100).states(pairs)
    tokens = sum(pair.packed_length for pair in pairs)
    adapted_bytes = policy.adapted_parameter_bytes()
    activations = estimate_activations(config, dtype_bytes=4, is_padded=False, adapted_bytes=adapted_bytes)
    estimated = activations.of_pass(tokens, is_checkpointed=False)
    assert states.hidden_MD.requires_grad
    assert 0.67 < estimated / sum(kept.values()) < 1.5, (estimated, sum(kept.values()))
