"""One run of our trainer over the benchmark's pairs, as `python -m trainers` in a process of its own.

Some epochs of the same pairs: the first has the reference pass in it, the others find the reference known.
"""

import hashlib
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from schemas.run_record import Outcome, StepMetrics
from schemas.run_spec import DpoParameters, LoraParameters, ModelSource, PreferenceFile, RunSpec
from service.backends.trainer_command import import_path, local_command
from tests.benchmarks.cases import Case
from tests.tiny_runs import read_events
from trainers.data.chat_tokens import PairTokens, tokenize_rows
from trainers.data.preference_dataset import read_rows
from trainers.errors import InvalidTrainingFile

EPOCHS = 2
RANK = 16


@dataclass(frozen=True, slots=True)
class OurRun:
    first_epoch_s: float
    """Training steps with the reference pass in them."""
    cached_epoch_s: float
    """Training steps alone; the median of the later epochs."""
    until_first_step_s: float
    """From the process's start to the end of its first step."""
    peak_memory_bytes: int
    """Of worker 0; on a GPU the most that it had allocated there."""
    trained_tokens: int
    """Of one epoch: prompt and completion of both sides, as TRL counts them."""
    losses: list[float]
    """Of the first epoch."""


def run_ours(
    folder: Path,
    case: Case,
    *,
    model: Path,
    workers: int = 1,
    threads_per_worker: int | None = None,
    on_gpu: bool = False,
    epochs: int = EPOCHS,
) -> OurRun:
    """In float32; on a GPU in bfloat16.

    Raises: RuntimeError with the trainer's last words when it did not succeed.
    """
    folder.mkdir()
    spec = _spec(case, model, workers, epochs, on_gpu=on_gpu)
    (folder / "spec.json").write_text(spec.model_dump_json())
    threads = {} if threads_per_worker is None else {"OMP_NUM_THREADS": str(threads_per_worker)}
    started = time.time()
    command = local_command(str(folder), workers=workers)
    environment = os.environ | {"PYTHONPATH": import_path()} | threads
    trainer = subprocess.run(command, capture_output=True, text=True, env=environment)
    if trainer.returncode != 0:
        raise RuntimeError(f"the trainer ended with {trainer.returncode}: {trainer.stderr[-2000:]}")
    outcome = Outcome.model_validate_json((folder / "outcome.json").read_text())
    if outcome.status != "succeeded":
        raise RuntimeError(f"the run failed: {outcome.error}")
    events = _step_events(folder)
    steps = [step for _, step in events]
    per_epoch = len(steps) // epochs
    epochs_of_steps = [steps[first : first + per_epoch] for first in range(0, len(steps), per_epoch)]
    seconds = [sum(step.step_seconds for step in epoch) for epoch in epochs_of_steps]
    return OurRun(
        first_epoch_s=seconds[0],
        cached_epoch_s=statistics.median(seconds[1:]),
        until_first_step_s=events[0][0] - started,
        peak_memory_bytes=outcome.peak_memory_bytes,
        trained_tokens=steps[per_epoch - 1].trained_tokens,
        losses=[step.train_loss for step in steps[:per_epoch]],
    )


def read_tokens(case: Case, tokenizer: PreTrainedTokenizerBase) -> list[PairTokens]:
    """The pairs as the trainer sees them."""
    content = case.rows.read_bytes()
    file = _file(case.rows)
    rows = read_rows(content, row_format=file.format, sha256=file.sha256, error=InvalidTrainingFile)
    return tokenize_rows(rows, tokenizer, max_length=case.max_length, error=InvalidTrainingFile).pairs


def _step_events(folder: Path) -> list[tuple[float, StepMetrics]]:
    return [(event.created_at, event.step_metrics) for event in read_events(folder) if event.step_metrics is not None]


def _spec(case: Case, model: Path, workers: int, epochs: int, *, on_gpu: bool) -> RunSpec:
    return RunSpec(
        run_id="bench-1",
        job_id="bench",
        fine_tuned_model="ft:bench",
        model=ModelSource(id=model.name, uri=str(model)),
        initial_adapter=None,
        reference="initial",
        training_file=_file(case.rows),
        validation_file=None,
        dpo=DpoParameters(
            beta=0.1,
            loss_type="sigmoid",
            label_smoothing=0.0,
            max_length=case.max_length,
            batch_size=case.batch_size,
            n_epochs=epochs,
            learning_rate=5e-5,
            lr_scheduler="linear",
            warmup_ratio=0.0,
            weight_decay=0.0,
            max_grad_norm=1.0,
        ),
        lora=LoraParameters(r=RANK, alpha=32, dropout=0.0, target_modules="all-linear", use_rslora=False),
        precision="bf16" if on_gpu else "fp32",
        seed=0,
        workers=workers,
        gpus_per_worker=int(on_gpu),
        evaluate_every_steps=10_000,
        guards=None,
        checkpoint_every_steps=10_000,
        resume_from=(),
    )


def _file(rows: Path) -> PreferenceFile:
    sha256 = hashlib.sha256(rows.read_bytes()).hexdigest()
    return PreferenceFile(file_id="file-bench", uri=str(rows), sha256=sha256, format="trl_explicit")
