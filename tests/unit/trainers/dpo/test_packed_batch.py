"""Packed = padded: the same log-probs, argmaxes and LoRA gradients, whatever the lengths."""

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from schemas.run_spec import LoraParameters
from trainers.data.chat_tokens import PairTokens
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.packed_batch import PackedLayout, pack_pairs
from trainers.dpo.scores import Layout
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import Policy, add_lora
from trainers.models.packed_attention import NotServedPacked

VOCABULARY = 64
CPU = torch.device("cpu")
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NEOX = {key: size for key, size in SIZES.items() if key not in ("num_key_value_heads", "head_dim")}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=64),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, sliding_window=None),
    "gpt_neox": GPTNeoXConfig(**NEOX),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
}


def make_policy(config: PretrainedConfig, *, targets: tuple[str, ...] | Literal["all-linear"] = "all-linear") -> Policy:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    lora = LoraParameters(r=4, alpha=8, dropout=0.0, target_modules=targets, use_rslora=False)
    policy = add_lora(model, lora, initial=None, reference="initial", seed=1)
    with torch.no_grad():
        for parameter in policy.parameters():  # B starts at zero, which would hide errors in A's gradient
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    return policy


def make_pair(prompt: int, chosen: int, rejected: int, *, seed: int) -> PairTokens:
    tokens = torch.randint(3, VOCABULARY, (prompt + chosen + rejected,), generator=torch.Generator().manual_seed(seed))
    ids = tuple(tokens.tolist())
    return PairTokens(ids[:prompt], ids[prompt : prompt + chosen], ids[prompt + chosen :], line=seed, row_id=None)


PAIRS = [make_pair(5, 3, 7, seed=1), make_pair(1, 9, 2, seed=2), make_pair(12, 1, 1, seed=3)]


def gradients_of(
    policy: Policy, layout: Layout, pairs: list[PairTokens]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    policy.model.zero_grad()
    states = layout.states(pairs)
    log_probs_N, is_argmax_N = states.log_probs()
    weights_N = torch.linspace(-1, 1, len(log_probs_N))  # unlike weights, so that mixed-up positions show
    (log_probs_N * weights_N).sum().backward()
    flat = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    return log_probs_N.detach(), is_argmax_N, flat


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT, of Mixtral's experts
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_pairs_score_and_learn_as_padded_ones(name: str) -> None:
    policy = make_policy(CONFIGS[name])
    expected = gradients_of(policy, PaddedLayout(policy, CPU, pad_token_id=0), PAIRS)
    fuse_lora_layers(policy.model)
    packed = gradients_of(policy, PackedLayout(policy, CPU, longest_row=24), PAIRS)
    for ours, theirs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 15), st.integers(0, 15)).filter(lambda n: n[0] + min(n[1:]) >= 1),
        min_size=1,
        max_size=5,
    )
)
def test_lengths_of_any_kind_give_the_padded_log_probs(lengths: list[tuple[int, int, int]]) -> None:
    pairs = [make_pair(*sizes, seed=number) for number, sizes in enumerate(lengths)]
    with torch.no_grad():
        expected = PaddedLayout(LLAMA, CPU, pad_token_id=0).states(pairs)
        packed = PackedLayout(LLAMA, CPU, longest_row=24).states(pairs)
    assert packed.lengths.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(packed.log_probs()[0], expected.log_probs()[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed.logits(0, 7), expected.logits(0, 7), rtol=1e-4, atol=1e-5)


def test_the_prompts_last_token_predicts_both_first_tokens() -> None:
    row = pack_pairs([PairTokens((10, 11), (20, 21), (30,), line=1, row_id=None)], device=CPU)
    assert row.token_ids_N.tolist() == [10, 11, 20, 21, 30]
    assert row.position_ids_N.tolist() == [0, 1, 2, 3, 2]
    assert row.predictor_M.tolist() == [1, 2, 1]
    assert row.target_M.tolist() == [20, 21, 30]


def test_a_window_shorter_than_a_pair_is_refused() -> None:
    policy = make_policy(MistralConfig(**SIZES, sliding_window=8))
    with pytest.raises(NotServedPacked, match="window of 8"):
        PackedLayout(policy, CPU, longest_row=24).states(PAIRS)


def test_soft_caps_are_refused() -> None:
    policy = make_policy(Gemma2Config(**SIZES, attn_logit_softcapping=50.0))
    with pytest.raises(NotServedPacked, match="soft caps"):
        PackedLayout(policy, CPU, longest_row=24).states(PAIRS)


LLAMA = make_policy(CONFIGS["llama"])
