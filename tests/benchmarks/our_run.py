"""One run of our trainer over the benchmark's pairs, as `python -m trainers` in a process of its own.

Two epochs of the same pairs: the first has the reference pass in it, the second finds the reference known.
"""

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from schemas.run_record import Outcome, RunEvent, StepMetrics
from schemas.run_spec import DpoParameters, LoraParameters, ModelSource, PreferenceFile, RunSpec

MAX_LENGTH = 512
BATCH_SIZE = 4


@dataclass(frozen=True, slots=True)
class OurRun:
    first_epoch_s: float
    """Training steps with the reference pass in them."""
    cached_epoch_s: float
    """Training steps alone."""
    until_first_step_s: float
    """From the process's start to the end of its first step."""
    peak_rss_bytes: int
    losses: list[float]
    """Of the first epoch."""


def run_ours(folder: Path, *, model: Path, rows: Path, pairs: int) -> OurRun:
    """Raises: RuntimeError with the trainer's last words when it did not succeed."""
    folder.mkdir()
    spec = _spec(model, rows)
    (folder / "spec.json").write_text(spec.model_dump_json())
    started = time.time()
    trainer = subprocess.run([sys.executable, "-m", "trainers", str(folder)], capture_output=True, text=True)
    if trainer.returncode != 0:
        raise RuntimeError(f"the trainer ended with {trainer.returncode}: {trainer.stderr[-2000:]}")
    outcome = Outcome.model_validate_json((folder / "outcome.json").read_text())
    if outcome.status != "succeeded":
        raise RuntimeError(f"the run failed: {outcome.error}")
    events = _step_events(folder)
    steps = [step for _, step in events]
    per_epoch = -(-pairs // BATCH_SIZE)
    return OurRun(
        first_epoch_s=sum(step.step_seconds for step in steps[:per_epoch]),
        cached_epoch_s=sum(step.step_seconds for step in steps[per_epoch:]),
        until_first_step_s=events[0][0] - started,
        peak_rss_bytes=outcome.peak_memory_bytes,
        losses=[step.train_loss for step in steps[:per_epoch]],
    )


def _step_events(folder: Path) -> list[tuple[float, StepMetrics]]:
    lines = [line for chunk in sorted((folder / "events").iterdir()) for line in chunk.read_text().splitlines()]
    events = [RunEvent.model_validate(json.loads(line)) for line in lines]
    return [(event.created_at, event.step_metrics) for event in events if event.step_metrics is not None]


def _spec(model: Path, rows: Path) -> RunSpec:
    return RunSpec(
        run_id="bench-1",
        job_id="bench",
        fine_tuned_model="ft:bench",
        model=ModelSource(id=model.name, uri=str(model)),
        initial_adapter=None,
        reference="initial",
        training_file=PreferenceFile(file_id="file-bench", uri=str(rows), sha256=_sha256(rows), format="trl_explicit"),
        validation_file=None,
        dpo=DpoParameters(
            beta=0.1,
            loss_type="sigmoid",
            label_smoothing=0.0,
            max_length=MAX_LENGTH,
            batch_size=BATCH_SIZE,
            n_epochs=2,
            learning_rate=5e-5,
            lr_scheduler="linear",
            warmup_ratio=0.0,
            weight_decay=0.0,
            max_grad_norm=1.0,
        ),
        lora=LoraParameters(r=16, alpha=32, dropout=0.0, target_modules="all-linear", use_rslora=False),
        precision="fp32",
        seed=0,
        workers=1,
        gpus_per_worker=0,
        evaluate_every_steps=10_000,
        guards=None,
        checkpoint_every_steps=10_000,
        resume_from=(),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
