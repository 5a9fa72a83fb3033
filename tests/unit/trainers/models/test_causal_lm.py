"""What a base model says of itself before it trains."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config

from tests.tiny_model import tiny_llama, tiny_tokenizer
from tests.tiny_runs import LORA, make_run, read_events
from trainers.entrypoint import run
from trainers.models.causal_lm import longest_sequence

SWITCH = 64
"""Tokens past which the model turns all positions of a pass otherwise."""
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": SWITCH,
}
PHI = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "original_max_position_embeddings": SWITCH,
    "rope_parameters": LONGROPE,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_a_model_is_as_long_as_its_positions() -> None:
    limit = longest_sequence(tiny_llama())
    assert limit is not None
    assert limit.tokens == 512


@pytest.mark.slow
def test_rows_end_where_longrope_would_make_them_depend_on_each_other(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(Phi3Config(vocab_size=len(tokenizer), **PHI), dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    make_run(tmp_path / "run", tmp_path / "model", lora=LORA.model_copy(update={"target_modules": ("qkv_proj",)}))
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is None, outcome.error
    told = {event.key: event.message for event in read_events(tmp_path / "run")}
    assert f"max_length is {SWITCH}, as LongRoPE" in told["max_length"]
