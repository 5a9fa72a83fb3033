"""Preference rows and run folders that train a tiny model in a second, and what such a run left."""

import hashlib
import json
from pathlib import Path
from typing import Any

from schemas.run_layout import EVENTS, SPEC
from schemas.run_record import RunEvent
from schemas.run_spec import DpoParameters, LoraParameters, ModelSource, PreferenceFile, RunSpec
from tests.tiny_model import WORDS

DPO = DpoParameters(
    beta=0.1,
    loss_type="sigmoid",
    label_smoothing=0.0,
    max_length=128,
    batch_size=4,
    n_epochs=2,
    learning_rate=5e-3,
    lr_scheduler="linear",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
)
LORA = LoraParameters(r=4, alpha=8, dropout=0.0, target_modules="all-linear", use_rslora=False)


def preference_rows(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    """OpenAI rows of different lengths, each with words of its own."""
    rows = []
    for number in range(first, first + count):
        lap = number // len(WORDS)
        words = [WORDS[(number * 5 + place * (place + number + lap)) % len(WORDS)] for place in range(14)]
        prompt, chosen, rejected = words[: 2 + number % 4], words[6 : 8 + number % 3], words[10 : 12 + number % 3]
        rows.append(
            {
                "input": {"messages": [{"role": "user", "content": " ".join(prompt)}]},
                "preferred_output": [{"role": "assistant", "content": " ".join(chosen)}],
                "non_preferred_output": [{"role": "assistant", "content": " ".join(rejected)}],
                "id": f"pair-{number}",
            }
        )
    return rows


def write_preferences(path: Path, rows: list[dict[str, Any]], *, row_format: str = "openai") -> PreferenceFile:
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return PreferenceFile.model_validate(
        {"file_id": f"file-{path.stem}", "uri": path.name, "sha256": sha256, "format": row_format}
    )


def make_run(folder: Path, model: Path, **changes: Any) -> RunSpec:
    """Write a run folder that trains on 10 pairs for 6 steps; `changes` are fields of its spec."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = RunSpec(
        run_id=f"ftjob-tiny-{folder.name}",
        job_id="ftjob-tiny",
        fine_tuned_model="ft:tiny:default:test:1",
        model=ModelSource(id="tiny", uri=str(model)),
        initial_adapter=None,
        reference="initial",
        training_file=write_preferences(folder / "training.jsonl", preference_rows(10)),
        validation_file=None,
        dpo=DPO,
        lora=LORA,
        precision="fp32",
        seed=3,
        workers=1,
        gpus_per_worker=0,
        evaluate_every_steps=100,
        guards=None,
        checkpoint_every_steps=100,
        resume_from=(),
    ).model_copy(update=changes)
    (folder / SPEC).write_text(spec.model_dump_json())
    return spec


def read_events(folder: Path) -> list[RunEvent]:
    chunks = sorted((folder / EVENTS).iterdir())
    return [RunEvent.model_validate_json(line) for chunk in chunks for line in chunk.read_bytes().splitlines()]


def losses(folder: Path) -> dict[int, float]:
    """The training loss of each step, the first told one where a step was told twice."""
    told: dict[int, float] = {}
    for event in read_events(folder):
        if event.step_metrics is not None:
            told.setdefault(event.step_metrics.step, event.step_metrics.train_loss)
    return told
