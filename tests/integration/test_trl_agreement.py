"""Ours = TRL 1.16's DPOTrainer over a whole job: token ids, losses, metrics, and the weights after 20 steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.integration.trl_runs import (
    STEPS,
    WARNINGS,
    Choice,
    initial_adapter,
    make_trl_trainer,
    train_with_ours,
    train_with_trl,
    trl_rows,
)
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import read_events, write_preferences
from trainers.data.chat_tokens import tokenize_rows
from trainers.data.preference_dataset import read_rows
from trainers.dpo.layout import ChosenLayout
from trainers.errors import InvalidTrainingFile

MIXTURE = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
JOBS = [
    pytest.param("llama", "packed", Choice(), id="sigmoid"),
    pytest.param("llama", "padded", Choice(), id="sigmoid, padded"),
    pytest.param("llama", "packed", Choice({"loss_type": "ipo"}), id="ipo"),
    pytest.param("llama", "padded", Choice({"loss_type": "hinge"}), id="hinge, padded"),
    pytest.param("llama", "packed", Choice({"loss_type": "aot"}), id="aot"),
    pytest.param("llama", "packed", Choice({"loss_type": MIXTURE}), id="mixture"),
    pytest.param("llama", "packed", Choice(lora={"use_rslora": True}), id="rsLoRA"),
    pytest.param("llama", "packed", Choice(lora={"use_dora": True}), id="DoRA"),
    pytest.param("qwen3", "packed", Choice({"loss_type": MIXTURE}), id="qwen3, mixture"),
    pytest.param("qwen3", "packed", Choice({"ld_alpha": 0.4, "use_weighting": True}), id="qwen3, LD-DPO and WPO"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    return {name: save_tiny_model(tmp_path_factory.mktemp(name), architecture=name) for name in ("llama", "qwen3")}


@pytest.mark.filterwarnings(*WARNINGS)
@pytest.mark.parametrize(("architecture", "layout", "choice"), JOBS)
def test_twenty_steps_agree_with_trl(
    tmp_path: Path,
    models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    layout: str,
    choice: Choice,
) -> None:
    model = models[architecture]
    if layout == "padded":
        force_padded(monkeypatch)
    initial = initial_adapter(model, tmp_path / "initial", choice)
    theirs, their_weights = train_with_trl(model, tmp_path / "trl", choice, initial)
    ours, our_weights = train_with_ours(model, tmp_path / "ours", monkeypatch, choice)
    assert len(ours) == len(theirs) == STEPS
    told = {event.key for event in read_events(tmp_path / "ours")}
    assert ("padded" in told, "cut:training_file" in told) == (layout == "padded", True)
    for mine, his in zip(ours, theirs, strict=True):
        assert mine.train_loss == pytest.approx(his["loss"], rel=2e-4, abs=1e-5)
        assert mine.grad_norm == pytest.approx(his["grad_norm"], rel=2e-3, abs=1e-5)
        assert mine.rewards_chosen == pytest.approx(his["rewards/chosen"], rel=1e-3, abs=1e-4)
        assert mine.rewards_margin == pytest.approx(his["rewards/margins"], rel=1e-3, abs=1e-4)
        assert mine.rewards_accuracy == pytest.approx(his["rewards/accuracies"], abs=1e-6)
        assert mine.logps_rejected == pytest.approx(his["logps/rejected"], rel=1e-4)
        assert mine.train_mean_token_accuracy == pytest.approx(his["mean_token_accuracy"], abs=1e-4)
        assert mine.trained_tokens == his["num_tokens"]
    assert our_weights.keys() == their_weights.keys()
    for name, weight in our_weights.items():
        torch.testing.assert_close(weight, their_weights[name], rtol=1e-3, atol=2e-4, msg=name)


def force_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.dpo import prepare
    from trainers.dpo.batch import PaddedLayout

    monkeypatch.setattr(
        prepare,
        "choose_layout",
        lambda policy, _pairs, *, device: ChosenLayout(PaddedLayout(policy, device), "asked"),
    )


@pytest.mark.filterwarnings(*WARNINGS)
@pytest.mark.parametrize("kind", ["conversations", "texts"])
def test_token_ids_are_trls(tmp_path: Path, models: dict[str, Path], kind: str) -> None:
    rows = trl_rows() if kind == "conversations" else [as_text(row) for row in trl_rows()]
    trainer = make_trl_trainer(models["llama"], tmp_path / "trl", Choice(), rows=rows)
    file = write_preferences(tmp_path / "rows.jsonl", rows, row_format="trl_explicit")
    content = (tmp_path / "rows.jsonl").read_bytes()
    read = read_rows(content, row_format="trl_explicit", sha256=file.sha256, error=InvalidTrainingFile)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(models["llama"])
    ours = tokenize_rows(read, tokenizer, max_length=10_000, error=InvalidTrainingFile).pairs
    theirs = [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in trainer.train_dataset]
    assert [(list(pair.prompt), list(pair.chosen), list(pair.rejected)) for pair in ours] == theirs


def as_text(row: dict[str, Any]) -> dict[str, str]:
    """No space at the boundary, so that tokens of prompt and answer can merge."""
    return {side: row[side][-1]["content"] for side in ("prompt", "chosen", "rejected")}
