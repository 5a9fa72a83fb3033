"""The layout is chosen by comparison: what packing cannot serve is served padded, and says why."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    NanoChatConfig,
    OPTConfig,
    PhimoeConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    XmodConfig,
)

from tests.cramped_layout import ask_a_gpu_for_too_much, cramped
from tests.tiny_runs import make_run
from tests.unit.trainers.dpo.test_packed_batch import CPU, PAIRS, SIZES, make_policy
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.layout import choose_layout
from trainers.dpo.packed_batch import PackedLayout
from trainers.entrypoint import run
from trainers.errors import UnusableModel
from trainers.models.plain_head import CHANGES_LOGITS, CHANGES_STATES


def test_a_llama_is_packed() -> None:
    chosen = choose_layout(make_policy(LlamaConfig(**SIZES)), PAIRS, device=CPU)
    assert chosen.why_padded is None
    assert isinstance(chosen.layout, PackedLayout)


WINDOW = 12
"""Longer than the pairs that are compared, shorter than the longest."""
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
IN_THE_MASK_ALONE = {
    "qwen2_moe": Qwen2MoeConfig(**SIZES, **EXPERTS, use_sliding_window=True, sliding_window=WINDOW),
    "phimoe": PhimoeConfig(**SIZES, num_local_experts=4, sliding_window=WINDOW),
    "llama4": Llama4TextConfig(**SIZES, num_local_experts=4, attention_chunk_size=WINDOW),
}


@pytest.mark.parametrize("name", IN_THE_MASK_ALONE)
def test_a_window_that_only_the_mask_knows_is_seen_in_the_config(name: str) -> None:
    policy = make_policy(IN_THE_MASK_ALONE[name], targets=("q_proj", "v_proj"))
    assert max(pair.longest_row for pair in PAIRS) == WINDOW + 1
    chosen = choose_layout(policy, PAIRS, device=CPU)
    assert chosen.why_padded is not None
    assert f"window of {WINDOW}" in chosen.why_padded


@pytest.mark.parametrize(
    "changes", [{"use_sliding_window": False, "sliding_window": 8}, {"sliding_window": 13, "use_sliding_window": True}]
)
def test_a_window_that_is_off_or_wide_enough_is_packed(changes: dict[str, Any]) -> None:
    policy = make_policy(Qwen2Config(**SIZES, **changes), targets=("q_proj", "v_proj"))
    assert choose_layout(policy, PAIRS, device=CPU).why_padded is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        pytest.param(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2), "", id="mamba"),
        pytest.param(Gemma2Config(**SIZES), "soft caps", id="gemma2"),
        pytest.param(MistralConfig(**SIZES, sliding_window=8), "window of 8", id="short window"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Mamba's, of missing CUDA kernels
def test_what_packing_cannot_serve_is_padded_and_says_why(config: PretrainedConfig, why: str) -> None:
    # PEFT refuses Mamba's out_proj, which "all-linear" would name.
    policy = make_policy(config, targets=("in_proj", "x_proj") if config.model_type == "mamba" else "all-linear")
    chosen = choose_layout(policy, PAIRS, device=CPU)
    assert isinstance(chosen.layout, PaddedLayout)
    assert chosen.why_padded
    assert why in chosen.why_padded
    with torch.no_grad():
        assert chosen.layout.states(PAIRS).log_probs()[0].isfinite().all()


UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": 30.0}
CHANGED_LOGITS = {
    "a soft cap": NanoChatConfig(**SIZES),
    "gemma2, that cap alone": Gemma2Config(**SIZES, **UNCAPPED),
    "a scale near 1": GraniteConfig(**SIZES, logits_scaling=1.01),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CHANGED_LOGITS)
def test_a_head_with_more_to_it_is_padded_however_little_it_changes_short_pairs(name: str, dtype: torch.dtype) -> None:
    policy = make_policy(CHANGED_LOGITS[name], targets=("q_proj", "v_proj"))
    policy.model.to(dtype)
    assert choose_layout(policy, PAIRS, device=CPU).why_padded == CHANGES_LOGITS


def test_states_that_change_before_the_head_are_padded() -> None:
    policy = make_policy(LlamaConfig(**SIZES))
    head = policy.causal_lm().lm_head
    assert isinstance(head, torch.nn.Linear)
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.0001,))
    assert choose_layout(policy, PAIRS, device=CPU).why_padded == CHANGES_STATES


PLAIN_HEADS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "granite": GraniteConfig(**SIZES, logits_scaling=1.0),
    "opt": OPTConfig(vocab_size=64, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_attention_heads=4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PLAIN_HEADS)
def test_a_plain_head_is_packed_and_left_without_hooks(name: str, dtype: torch.dtype) -> None:
    policy = make_policy(PLAIN_HEADS[name], targets=("q_proj", "v_proj"))
    policy.model.to(dtype)
    assert choose_layout(policy, PAIRS, device=CPU).why_padded is None
    assert not any(module._forward_hooks for module in policy.model.modules())


def test_a_model_that_neither_layout_can_run_is_the_users_to_change() -> None:
    policy = make_policy(XmodConfig(**SIZES, is_decoder=True))
    with pytest.raises(UnusableModel, match=r"Input language unknown.* method\.dpo\.lora\.target_modules"):
        choose_layout(policy, PAIRS, device=CPU)


def test_a_model_that_leaves_no_room_for_two_short_pairs_is_told_to_be_too_large(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", tiny_model)
    monkeypatch.setattr(PackedLayout, "states", cramped(0, allocate=ask_a_gpu_for_too_much, counts_all=True))
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param) == ("not_enough_memory", "model")
    for remedy in ('precision to "bf16"', 'quantization to "nf4"', "resources.gpus", "take a smaller model"):
        assert remedy in outcome.error.message
