"""The same training by TRL's DPOTrainer and by ours: rows, options, initial adapter, order of the pairs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from schemas.run_layout import ADAPTER
from schemas.run_record import StepMetrics
from schemas.run_spec import LoraParameters
from tests.tiny_runs import DPO, LORA, make_run, preference_rows, read_events, write_preferences
from trainers.dpo import plan
from trainers.entrypoint import run

PAIRS = 40
STEPS = 20
MAX_LENGTH = 22
"""Cuts some completions and drops no pair."""
WARNINGS = ["ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"]

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Choice:
    """Options in our words, and in TRL's where the words differ."""

    dpo: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> LoraParameters:
        return LORA.model_copy(update=self.lora)

    @property
    def trl(self) -> dict[str, Any]:
        named = {"f_divergence": "f_divergence_type"}
        loss = self.dpo.get("loss_type", "sigmoid")
        terms = loss if isinstance(loss, dict) else {loss: 1.0}
        others = {named.get(name, name): value for name, value in self.dpo.items() if name != "loss_type"}
        return {"loss_type": list(terms), "loss_weights": list(terms.values()), **others}


def trl_rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt": row["input"]["messages"],
            "chosen": row["preferred_output"],
            "rejected": row["non_preferred_output"],
        }
        for row in preference_rows(PAIRS)
    ]


def make_trl_trainer(
    model: Path, folder: Path, choice: Choice, *, rows: list[dict[str, Any]] | None = None, **options: Any
) -> DPOTrainer:
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
        **{"beta": 0.1} | choice.trl | options,
    )
    lora = choice.parameters
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=config,
        train_dataset=Dataset.from_list(rows or trl_rows()),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.r,
            lora_alpha=lora.alpha,
            target_modules="all-linear",
            use_rslora=lora.use_rslora,
            use_dora=lora.use_dora,
        ),
    )


def train_with_trl(
    model: Path, folder: Path, choice: Choice, initial: Weights
) -> tuple[list[dict[str, float]], Weights]:
    trainer = make_trl_trainer(model, folder, choice)
    log = StepLog()
    trainer.add_callback(log)
    load_adapter(trainer, initial)
    trainer.train()
    return log.steps, {name: weight.detach().clone() for name, weight in adapter_of(trainer).items()}


def load_adapter(trainer: DPOTrainer, weights: Weights) -> None:
    with torch.no_grad():
        for name, parameter in adapter_of(trainer).items():
            parameter.copy_(weights[name])


def adapter_of(trainer: DPOTrainer) -> Weights:
    """By the names that PEFT gives them in a file."""
    return {file_name(name): value for name, value in trainer.model.named_parameters() if "lora_" in name}


def file_name(name: str) -> str:
    return name.replace(".default", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def train_with_ours(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, choice: Choice
) -> tuple[list[StepMetrics], Weights]:
    monkeypatch.setattr(plan, "epoch_order", lambda pairs, **_: list(range(pairs)))  # TRL's "sequential"
    file = write_preferences(folder.with_suffix(".jsonl"), preference_rows(PAIRS))
    file = file.model_copy(update={"uri": str(folder.with_suffix(".jsonl"))})
    changes = {"max_length": MAX_LENGTH, "warmup_ratio": 0.1, **choice.dpo}
    make_run(folder, model, training_file=file, dpo=DPO.model_copy(update=changes), lora=choice.parameters)
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is None
    metrics = [event.step_metrics for event in read_events(folder) if event.step_metrics]
    return metrics, load_file(folder / ADAPTER / "adapter_model.safetensors")


def initial_adapter(model: Path, folder: Path, choice: Choice) -> Weights:
    """Ours after a job whose rate is zero: the adapter as it was made."""
    unmoved = DPO.model_copy(update={"learning_rate": 0.0, "n_epochs": 1})
    make_run(folder, model, dpo=unmoved, lora=choice.parameters)
    run(str(folder))
    return load_file(folder / ADAPTER / "adapter_model.safetensors")


class StepLog(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.steps.append(logs)
