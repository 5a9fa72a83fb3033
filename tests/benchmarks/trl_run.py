"""One TRL 1.16 DPO run over the benchmark's pairs, in a process of its own; prints its numbers as one JSON line.

`defaults` is what a user gets who sets no option of speed. `tuned` is each option at its best for a CPU in fp32: no
gradient checkpointing, the fused optimizer, no dataloader workers, no logging but the losses; once with the reference
computed beside each step, once precomputed, and both with all pairs of a step in one padded pass or one pair a pass.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from tests.benchmarks.cases import BATCH_SIZE

TUNED = {"gradient_checkpointing": False, "optim": "adamw_torch_fused"}
PRECOMPUTED = {"precompute_ref_log_probs": True}
ONE_PAIR_A_PASS = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH_SIZE}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "tuned": TUNED,
    "tuned, precomputed": TUNED | PRECOMPUTED,
    "tuned, one pair a pass": TUNED | ONE_PAIR_A_PASS,
    "tuned, precomputed, one pair a pass": TUNED | PRECOMPUTED | ONE_PAIR_A_PASS,
}


class TrainingClock(TrainerCallback):
    """Seconds between the first step's start and the last one's end."""

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, *_: object, **__: object) -> None:
        self.seconds = time.perf_counter() - self.started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--configuration", choices=CONFIGURATIONS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="TRL's explicit conversational rows, JSONL")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--max-length", type=int, default=512)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()]
    clock = TrainingClock()
    common = {
        "output_dir": str(arguments.output),
        "per_device_train_batch_size": BATCH_SIZE,
        "num_train_epochs": 1,
        "max_length": arguments.max_length,
        "learning_rate": 5e-5,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
    }
    config = DPOConfig(**(common | CONFIGURATIONS[arguments.configuration]))
    started = time.perf_counter()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
        callbacks=[clock],
    )
    trainer.train()
    result = {
        "training_s": clock.seconds,
        "reference_and_training_s": time.perf_counter() - started,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
