"""The default model, made from its package: right tokens, sensible answers, and a run that tunes it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainers.models.smollm2 import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made beside what a killed preparation left."""
    parent = tmp_path_factory.mktemp("models")
    (parent / ".smollm2.unfinished-999999999").mkdir()
    (parent / "smollm2").mkdir()
    prepare(parent / "smollm2")
    return parent / "smollm2"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


def test_nothing_but_the_whole_model_is_left(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["smollm2"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in folder.iterdir()
    }


def test_a_second_preparation_changes_nothing(folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    prepare(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_template_and_special_tokens_are_smollm2s(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer("<|im_start|>assistant\n")["input_ids"] == [1, 520, 9531, 198]


def test_digits_are_split_before_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    """Two blanks before a digit are one token, as in SmolLM2's own tokenizer; GPT-2's splits them."""
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  12")["input_ids"]) == ["a", "ĠĠ", "1", "2"]


def test_it_answers_sensibly(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.rms_norm_eps == 1e-5
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
