"""Whole runs of tiny models of real classes: packed where that is exact, padded elsewhere, and each of them learns."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3nTextConfig,
    Gemma4TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PhimoeConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

from tests.tiny_model import tiny_tokenizer
from tests.tiny_runs import DPO, LORA, make_run, preference_rows, read_events, write_preferences
from trainers.entrypoint import run

VOCABULARY = 320
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = TOKENS | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = PLAIN | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@dataclass(frozen=True, slots=True)
class Case:
    config: PretrainedConfig
    why_padded: str | None
    """None: packed. Otherwise a word of the reason told."""
    targets: tuple[str, ...] | str = "all-linear"


CASES = {
    "llama": Case(LlamaConfig(**GROUPED), None),
    "qwen2": Case(Qwen2Config(**GROUPED), None),
    "qwen3": Case(Qwen3Config(**GROUPED), None),
    "mistral": Case(MistralConfig(**GROUPED, sliding_window=64), None),
    "mistral, short window": Case(MistralConfig(**GROUPED, sliding_window=8), "window of 8"),
    "gpt2": Case(GPT2Config(**TOKENS, n_embd=32, n_layer=2, n_head=4), None),
    "gpt_neox": Case(GPTNeoXConfig(**PLAIN, intermediate_size=48), None),
    "mixtral": Case(MixtralConfig(**GROUPED, num_local_experts=4), None),
    "qwen2_moe": Case(
        Qwen2MoeConfig(**GROUPED, **EXPERTS, shared_expert_intermediate_size=24), None, ("q_proj", "v_proj")
    ),
    "llama4": Case(Llama4TextConfig(**GROUPED, intermediate_size_mlp=48, num_local_experts=4), "last_hidden_state"),
    "phimoe": Case(PhimoeConfig(**GROUPED, num_local_experts=4), None),
    "gemma2": Case(Gemma2Config(**GROUPED), "soft caps"),
    "gemma4": Case(
        Gemma4TextConfig(**GROUPED, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8), None
    ),
    "gemma3n": Case(
        Gemma3nTextConfig(
            **GROUPED,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=0,
            laurel_rank=4,
            layer_types=["full_attention"] * 2,
        ),
        "soft cap",
    ),
    "falcon, alibi": Case(FalconConfig(**PLAIN, alibi=True), "", ("query_key_value",)),
    # PEFT refuses Mamba's out_proj, which "all-linear" would name.
    "mamba": Case(MambaConfig(**TOKENS, hidden_size=32, num_hidden_layers=2), "", ("in_proj", "x_proj")),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Mamba's, of missing CUDA kernels
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT, of Mixtral's experts
@pytest.mark.parametrize("name", CASES)
def test_every_architecture_learns(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    run_folder, model_folder = tmp_path / "run", tmp_path / "model"
    torch.manual_seed(7)
    tiny_tokenizer().save_pretrained(model_folder)
    AutoModelForCausalLM.from_config(case.config, dtype=torch.float32).save_pretrained(model_folder)
    run_folder.mkdir()
    make_run(
        run_folder,
        model_folder,
        training_file=write_preferences(run_folder / "six.jsonl", preference_rows(6)),
        validation_file=write_preferences(run_folder / "two.jsonl", preference_rows(2, first=30)),
        dpo=DPO.model_copy(update={"batch_size": 3, "learning_rate": 2e-2}),
        lora=LORA.model_copy(update={"target_modules": case.targets}),
    )
    outcome = run(str(run_folder))
    assert outcome is not None
    assert outcome.error is None, outcome.error
    events = read_events(run_folder)
    padded = [event.message for event in events if event.key == "padded"]
    assert len(padded) == (case.why_padded is not None)
    assert all(case.why_padded in message for message in padded if case.why_padded)
    steps = [event.step_metrics for event in events if event.step_metrics is not None]
    assert len(steps) == 4
    assert steps[0].rewards_margin == pytest.approx(0, abs=1e-5)
    assert steps[-1].rewards_margin > 0
    assert steps[-1].train_loss < steps[0].train_loss
