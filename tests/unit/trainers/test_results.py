"""The tokenizer that goes with an adapter is the base's own, with all of its chat templates."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from schemas.run_layout import ADAPTER, EVENTS
from tests.tiny_model import CHATML, save_tiny_model, tiny_tokenizer
from tests.tiny_runs import make_run
from trainers.entrypoint import run


def test_a_tokenizer_with_several_chat_templates_is_delivered_with_all_of_them(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    tokenizer, templates = tiny_tokenizer(), {"default": CHATML, "tool_use": f"{CHATML} ", "rag": f"{CHATML}  "}
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(model)
    make_run(tmp_path / "run", model)
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is None
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / ADAPTER).chat_template == templates


def test_a_tokenizer_without_a_padding_token_is_delivered_without_one(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    make_run(tmp_path / "run", model)
    run(str(tmp_path / "run"))
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / ADAPTER).pad_token is None


def test_a_tokenizer_that_cannot_be_saved_ends_the_run_before_its_first_step(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", fail)
    make_run(tmp_path / "run", tiny_model)
    with pytest.raises(OSError, match="no space left"):
        run(str(tmp_path / "run"))
    assert not (tmp_path / "run" / EVENTS).exists()
