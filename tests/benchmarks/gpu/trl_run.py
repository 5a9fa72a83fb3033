"""One tuned TRL 1.16 run on a GPU, in a process of its own; prints its numbers as one JSON line.

Each option at its best for one large GPU: bfloat16, no gradient checkpointing, the reference precomputed, Liger's
kernels, the fused optimizer, and as many pairs a pass as fit: the sizes are tried from the largest on. Attention is
torch's own, as in ours: TRL's padding-free mode wants the flash-attn package.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

SIZES = (32, 16, 8, 4, 2, 1)
"""Pairs a pass."""


class EpochClock(TrainerCallback):
    """Seconds of each epoch; a step ends when the device has done it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        _wait()
        self._began = time.perf_counter()

    def on_epoch_end(self, *_: object, **__: object) -> None:
        _wait()
        self.seconds.append(time.perf_counter() - self._began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="TRL's explicit conversational rows, JSONL")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True, help="pairs a step")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--most", type=int, default=SIZES[0], help="pairs a pass to begin with")
    arguments = parser.parse_args()
    for size in [size for size in SIZES if size <= min(arguments.most, arguments.batch_size)]:
        try:
            result = _train(arguments, size)
        except torch.OutOfMemoryError:
            continue
        sys.stdout.write(json.dumps(result) + "\n")
        return
    sys.exit("not even one pair a pass fits")


def _train(arguments: argparse.Namespace, size: int) -> dict[str, Any]:
    gc.collect()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()]
    clock = EpochClock()
    config = DPOConfig(
        output_dir=str(arguments.output),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=arguments.batch_size // size,
        num_train_epochs=arguments.epochs,
        max_length=arguments.max_length,
        learning_rate=5e-5,
        bf16=True,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=size,
        use_liger_kernel=on_gpu,
        optim="adamw_torch_fused",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16)
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
        callbacks=[clock],
    )
    began = time.perf_counter()
    trainer.train()
    in_all = time.perf_counter() - began
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "pairs a pass": size,
        "first epoch with the reference, s": in_all - sum(clock.seconds[1:]),
        "later epochs, s": clock.seconds[1:],
        "peak memory, bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
        "losses": losses[: len(losses) // arguments.epochs],
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
