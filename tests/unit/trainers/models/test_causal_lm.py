"""A base is loaded whole or not at all: what its files lack is not made up; and what it says of its length."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Metaspace, Whitespace
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaForSequenceClassification,
    Phi3Config,
    PreTrainedTokenizerFast,
)

from tests.tiny_model import save_tiny_model, tiny_llama, tiny_tokenizer
from tests.tiny_runs import LORA, make_run, read_events
from trainers.entrypoint import run
from trainers.errors import UnusableModel
from trainers.models.causal_lm import load_causal_lm, load_tokenizer, longest_sequence, vocabulary_size

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
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


def load(folder: Path) -> Any:
    return load_causal_lm(folder, precision="fp32", device=CPU)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model")


def without_a_weight(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})


def with_a_weight_of_another_shape(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    weights["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(16, 32)
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})


def cut_in_half(model: Path) -> None:
    content = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(content[: len(content) // 2])


def without_a_file_of_its_index(model: Path) -> None:
    (model / WEIGHTS).rename(model / "model-00001-of-00002.safetensors")
    places = {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    index = {"metadata": {}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def with_half_a_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "lla')


def quantised_by_a_missing_package(model: Path) -> None:
    config = json.loads((model / "config.json").read_bytes())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False}
    (model / "config.json").write_text(json.dumps(config))


def made_a_reward_model(model: Path) -> None:
    tiny = tiny_llama()
    LlamaForSequenceClassification(tiny.config).save_pretrained(model)


def made_an_encoder(model: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=320, **sizes)).bert.save_pretrained(model)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_a_weight, r"lack 1 of its weights, such as model\.layers\.1\.mlp\.up_proj\.weight.* copy it anew"),
        (with_a_weight_of_another_shape, r"q_proj\.weight has the shape \[16, 32\] in its files and \[32, 32\] by its"),
        (cut_in_half, "cannot be loaded: .* copy it anew"),
        (without_a_file_of_its_index, "cannot be loaded: .*00002-of-00002.* copy it anew"),
        (with_half_a_config, r"config\.json is not JSON .* copy the model anew"),
        (quantised_by_a_missing_package, "what this trainer lacks: .*optimum.* register the unquantised model"),
        (made_a_reward_model, r"such as lm_head\.weight.*a reward model"),
        (made_an_encoder, "an encoder.* take another model"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_base_that_is_not_whole_is_refused(model: Path, damage: Any, told: str) -> None:
    damage(model)
    with pytest.raises(UnusableModel, match=told):
        load(model)


def test_a_run_on_a_damaged_base_fails_for_good(tmp_path: Path, model: Path) -> None:
    without_a_weight(model)
    make_run(tmp_path / "run", model)
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param) == ("model_not_usable", "model")


def test_a_tied_head_is_not_missed(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tied", architecture="qwen3")
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    assert vocabulary_size(load(folder)) == len(tiny_tokenizer())


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("reader", "read"), [(AutoModelForCausalLM, load), (AutoTokenizer, load_tokenizer)], ids=["weights", "tokenizer"]
)
def test_a_disk_that_fails_is_not_the_models_fault(
    model: Path, monkeypatch: pytest.MonkeyPatch, reader: type, read: Callable[[Path], object], number: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reader, "from_pretrained", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        read(model)


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


@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "LlamaTokenizer", "GemmaTokenizer", "T5Tokenizer"])
def test_a_tokenizer_without_its_vocabulary_is_refused(model: Path, kind: str) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text()) | {"tokenizer_class": kind}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "tokenizer.json").unlink()
    with pytest.raises(UnusableModel, match=r"its files are incomplete .* copy it anew"):
        load_tokenizer(model)


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)


def test_tokenizers_that_are_odd_are_not_refused(tmp_path: Path) -> None:
    bases = WordLevel({"<unk>": 0, "</s>": 1, "A": 2, "C": 3, "G": 4, "T": 5}, unk_token="<unk>")
    of_genes = Tokenizer(bases)
    of_genes.pre_tokenizer = Whitespace()
    with_prefix = Tokenizer(BPE({"<unk>": 0, "</s>": 1, "\u2581": 2, "a": 3}, [], unk_token="<unk>"))
    with_prefix.pre_tokenizer, with_prefix.decoder = Metaspace(), decoders.Metaspace()
    for number, tokenizer in enumerate((of_genes, with_prefix)):
        save_tokenizer(tmp_path / str(number), tokenizer)
        assert load_tokenizer(tmp_path / str(number)).eos_token == "</s>"
