"""Packed = padded: the same log-probs, argmaxes and LoRA gradients, whatever the lengths."""

from collections.abc import Sequence
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
from trainers.data.chat_tokens import PairTokens, cut
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.packed_batch import PackedLayout, pack_pairs
from trainers.dpo.plan import micro_batches, shard
from trainers.dpo.scores import Layout, score
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import Policy, add_lora
from trainers.models.packed_attention import NotServedPacked
from trainers.models.packed_segments import Segment

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


def make_pair(prompt: int, chosen: int, rejected: int, *, seed: int, common: int = 0) -> PairTokens:
    """`common`: how many of the completions' first tokens are the same, if there are so many."""
    tokens = torch.randint(3, VOCABULARY, (prompt + chosen + rejected,), generator=torch.Generator().manual_seed(seed))
    ids = tuple(tokens.tolist())
    chosen_ids, rejected_ids = ids[prompt : prompt + chosen], ids[prompt + chosen :]
    common = min(common, chosen, rejected)
    return PairTokens(ids[:prompt], chosen_ids, chosen_ids[:common] + rejected_ids[common:], line=seed, row_id=None)


PAIRS = [
    make_pair(5, 3, 7, seed=1),
    make_pair(1, 9, 2, seed=2),
    make_pair(12, 1, 1, seed=3),
    make_pair(3, 6, 8, seed=4, common=4),
]


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
    expected = gradients_of(policy, PaddedLayout(policy, CPU), PAIRS)
    fuse_lora_layers(policy.model)
    packed = gradients_of(policy, PackedLayout(policy, CPU, longest_row=24), PAIRS)
    for ours, theirs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@st.composite
def drawn_pairs(draw: st.DrawFn) -> list[PairTokens]:
    """Pairs of any lengths, some cut by a `max_length`; each side has a token to predict."""
    sizes = st.tuples(st.integers(0, 20), st.integers(0, 15), st.integers(0, 15), st.integers(0, 15))
    drawn = draw(st.lists(sizes.filter(lambda n: n[0] + min(n[1:3]) >= 1), min_size=1, max_size=5))
    max_length = draw(st.integers(2, 40))
    pairs = [make_pair(*size[:3], seed=seed, common=size[3]) for seed, size in enumerate(drawn)]
    kept = [cut(pair, max_length=max_length) for pair in pairs if len(pair.prompt) < max_length]
    return kept or pairs


@settings(max_examples=25, deadline=None)
@given(pairs=drawn_pairs())
def test_lengths_of_any_kind_give_the_padded_log_probs(pairs: list[PairTokens]) -> None:
    with torch.no_grad():
        expected = PaddedLayout(LLAMA, CPU).states(pairs)
        packed = PackedLayout(LLAMA, CPU, longest_row=36).states(pairs)
    assert packed.lengths.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(packed.log_probs()[0], expected.log_probs()[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed.logits(0, 7), expected.logits(0, 7), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(pairs=drawn_pairs(), token_budget=st.integers(1, 120), workers=st.integers(1, 3))
def test_no_budget_and_no_number_of_workers_changes_the_gradient(
    pairs: list[PairTokens], token_budget: int, workers: int
) -> None:
    """The sum over all workers' packed passes is the padded gradient of all pairs at once."""
    expected = sum_of_margins(PaddedLayout(LLAMA, CPU), [pairs])
    passes = [
        [pairs[index] for index in indices]
        for rank in range(workers)
        for indices in micro_batches(
            shard(range(len(pairs)), pairs, rank=rank, world_size=workers),
            pairs,
            token_budget=token_budget,
            pads=False,
        )
    ]
    assert sorted(pair.line for part in passes for pair in part) == sorted(pair.line for pair in pairs)
    torch.testing.assert_close(
        sum_of_margins(PackedLayout(LLAMA, CPU, longest_row=36), passes), expected, rtol=1e-3, atol=1e-4
    )


def sum_of_margins(layout: Layout, passes: Sequence[Sequence[PairTokens]]) -> torch.Tensor:
    """The gradient of the sum of log p(chosen) - log p(rejected) over all pairs."""
    LLAMA.model.zero_grad()
    for pairs in passes:
        scores = score(layout, pairs)
        (scores.chosen.log_probs_B - scores.rejected.log_probs_B).sum().backward()
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in LLAMA.parameters()]
    )


def test_the_prompts_last_token_predicts_both_first_tokens() -> None:
    row = pack_pairs([PairTokens((10, 11), (20, 21), (30,), line=1, row_id=None)], device=CPU)
    assert row.token_ids_N.tolist() == [10, 11, 20, 21, 30]
    assert row.position_ids_N.tolist() == [0, 1, 2, 3, 2]
    assert row.predictor_M.tolist() == [1, 2, 1]
    assert row.target_M.tolist() == [20, 21, 30]


def test_first_words_that_both_sides_share_are_computed_once_and_predict_for_both() -> None:
    row = pack_pairs([PairTokens((10,), (20, 21, 22), (20, 21, 30, 31), line=1, row_id=None)], device=CPU)
    assert row.token_ids_N.tolist() == [10, 20, 21, 22, 30, 31]
    assert row.position_ids_N.tolist() == [0, 1, 2, 3, 3, 4]
    assert row.predictor_M.tolist() == [0, 1, 2, 0, 1, 2, 4]
    assert row.target_M.tolist() == [20, 21, 22, 20, 21, 30, 31]
    assert row.segments == (Segment(shared=3, chosen=1, rejected=2),)


def test_a_window_shorter_than_a_pair_is_refused() -> None:
    policy = make_policy(MistralConfig(**SIZES, sliding_window=8))
    with pytest.raises(NotServedPacked, match="window of 8"):
        PackedLayout(policy, CPU, longest_row=24).states(PAIRS)


def test_soft_caps_are_refused() -> None:
    policy = make_policy(Gemma2Config(**SIZES, attn_logit_softcapping=50.0))
    with pytest.raises(NotServedPacked, match="soft caps"):
        PackedLayout(policy, CPU, longest_row=24).states(PAIRS)


LLAMA = make_policy(CONFIGS["llama"])
