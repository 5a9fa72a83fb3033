"""Ours = TRL 1.16's DPOTrainer: token ids, losses, metrics, and the weights after 20 steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, DPOTrainer

from schemas.run_layout import ADAPTER
from schemas.run_record import StepMetrics
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import DPO, LORA, make_run, preference_rows, read_events, write_preferences
from trainers.data.chat_tokens import tokenize_rows
from trainers.data.preference_dataset import read_rows
from trainers.dpo import plan
from trainers.dpo.layout import ChosenLayout
from trainers.entrypoint import run
from trainers.errors import InvalidTrainingFile

PAIRS = 40
STEPS = 20
MAX_LENGTH = 22
"""Cuts some completions and drops no pair."""
WARNINGS = ["ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def trl_rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt": row["input"]["messages"],
            "chosen": row["preferred_output"],
            "rejected": row["non_preferred_output"],
        }
        for row in preference_rows(PAIRS)
    ]


class StepLog(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.steps.append(logs)


def train_with_trl(
    model: Path, folder: Path, rows: list[dict[str, Any]], initial: dict[str, torch.Tensor], **options: Any
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], DPOTrainer]:
    config = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        learning_rate=5e-3,
        lr_scheduler_type="linear",
        warmup_steps=2,
        max_length=MAX_LENGTH,
        logging_steps=1,
        bf16=False,
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    log = StepLog()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=LORA.r, lora_alpha=LORA.alpha, target_modules="all-linear"),
        callbacks=[log],
    )
    trainer.model.load_state_dict(
        {name.replace(".weight", ".default.weight"): weight for name, weight in initial.items()}, strict=False
    )
    trainer.train()
    weights = {
        name.replace(".default", ""): parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if "lora_" in name
    }
    return log.steps, weights, trainer


def train_with_ours(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **dpo: Any
) -> tuple[list[StepMetrics], dict[str, torch.Tensor]]:
    monkeypatch.setattr(plan, "epoch_order", lambda pairs, **_: list(range(pairs)))  # TRL's "sequential"
    file = write_preferences(folder.with_suffix(".jsonl"), preference_rows(PAIRS))
    file = file.model_copy(update={"uri": str(folder.with_suffix(".jsonl"))})
    changes = {"max_length": MAX_LENGTH, "warmup_ratio": 0.1, **dpo}
    make_run(folder, model, training_file=file, dpo=DPO.model_copy(update=changes))
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is None
    metrics = [event.step_metrics for event in read_events(folder) if event.step_metrics]
    return metrics, load_file(folder / ADAPTER / "adapter_model.safetensors")


def initial_adapter(model: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Ours after a job whose rate is zero: the adapter as it was made."""
    make_run(folder, model, dpo=DPO.model_copy(update={"learning_rate": 0.0, "n_epochs": 1}))
    run(str(folder))
    return load_file(folder / ADAPTER / "adapter_model.safetensors")


@pytest.mark.filterwarnings(*WARNINGS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
def test_twenty_steps_agree_with_trl(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, loss_type: str, layout: str
) -> None:
    if layout == "padded":
        force_padded(monkeypatch)
    initial = initial_adapter(model, tmp_path / "initial")
    theirs, their_weights, _ = train_with_trl(
        model, tmp_path / "trl", trl_rows(), initial, loss_type=[loss_type], beta=0.1
    )
    ours, our_weights = train_with_ours(model, tmp_path / "ours", monkeypatch, loss_type=loss_type)
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
        lambda policy, _pairs, *, device, pad_token_id: ChosenLayout(
            PaddedLayout(policy, device, pad_token_id), "asked"
        ),
    )


@pytest.mark.filterwarnings(*WARNINGS)
@pytest.mark.parametrize("kind", ["conversations", "texts"])
def test_token_ids_are_trls(tmp_path: Path, model: Path, kind: str) -> None:
    rows = trl_rows() if kind == "conversations" else [as_text(row) for row in trl_rows()]
    initial: dict[str, torch.Tensor] = {}
    _, _, trainer = train_with_trl(model, tmp_path / "trl", rows, initial, max_steps=1)
    file = write_preferences(tmp_path / "rows.jsonl", rows, row_format="trl_explicit")
    content = (tmp_path / "rows.jsonl").read_bytes()
    read = read_rows(content, row_format="trl_explicit", sha256=file.sha256, error=InvalidTrainingFile)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    ours = tokenize_rows(read, tokenizer, max_length=10_000, error=InvalidTrainingFile).pairs
    theirs = [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in trainer.train_dataset]
    assert [(list(pair.prompt), list(pair.chosen), list(pair.rejected)) for pair in ours] == theirs


def as_text(row: dict[str, Any]) -> dict[str, str]:
    """No space at the boundary, so that tokens of prompt and answer can merge."""
    return {side: row[side][-1]["content"] for side in ("prompt", "chosen", "rejected")}
