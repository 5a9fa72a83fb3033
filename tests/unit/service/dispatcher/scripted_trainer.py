"""What a trainer leaves in its run folder, written by hand: chunks of steps, a checkpoint, an outcome."""

from pathlib import Path

from schemas.run_layout import OUTCOME, event_chunk
from schemas.run_record import (
    AdapterResult,
    CheckpointRecord,
    Outcome,
    RunError,
    RunEvent,
    SftMetrics,
    StepMetrics,
    StoredFile,
)
from service.backends.backend import RunRequest, RunState, RunStatus
from tests.unit.service.dispatcher.scripted_backend import ENDED_WELL, Action

TOTAL_STEPS = 6
CREATED_AT = 1_700_000_000.0
STORED = StoredFile(path="results/step_metrics.csv", sha256="c" * 64, bytes=12)
ARCHIVE = StoredFile(path="results/adapter.tar.gz", sha256="d" * 64, bytes=34)


def message_event(key: str, text: str) -> RunEvent:
    return RunEvent(key=key, created_at=CREATED_AT, level="info", message=text)


def step_event(step: int) -> RunEvent:
    metrics = StepMetrics.model_validate(
        dict.fromkeys(StepMetrics.model_fields, 0.5)
        | {"step": step, "total_steps": TOTAL_STEPS, "trained_tokens": 10 * step, "step_seconds": 2.0}
    )
    return RunEvent(key=f"step:{step}", created_at=CREATED_AT + step, level="info", message="", step_metrics=metrics)


def sft_event(step: int) -> RunEvent:
    metrics = SftMetrics.model_validate(
        dict.fromkeys(SftMetrics.model_fields, 2.5)
        | {"step": step, "total_steps": 4, "trained_tokens": 10 * step, "seconds_left": 30.0}
    )
    told = message_event(f"sft:{step}", f"SFT step {step}/4: loss 2.5000")
    return told.model_copy(update={"sft_metrics": metrics, "created_at": CREATED_AT + step})


def checkpoint_event(step: int) -> RunEvent:
    record = CheckpointRecord(
        step=step,
        adapter=f"checkpoints/step-{step:08d}/adapter",
        adapter_sha256="a" * 64,
        adapter_bytes=7,
        train_loss=0.6,
        train_mean_token_accuracy=0.5,
    )
    return message_event(f"checkpoint:{step}", f"Checkpoint saved at step {step}").model_copy(
        update={"checkpoint": record}
    )


def write_chunk(number: int, *events: RunEvent) -> Action:
    def act(request: RunRequest) -> None:
        lines = "".join(f"{event.model_dump_json(exclude_none=True)}\n" for event in events)
        write_file(request, event_chunk(number), lines.encode())

    return act


def write_outcome(
    *, error: RunError | None = None, is_paused: bool = False, after: RunStatus | None = ENDED_WELL
) -> Action:
    def act(request: RunRequest) -> RunStatus | None:
        status = "failed" if error else "paused" if is_paused else "succeeded"
        has_results = status == "succeeded"
        outcome = Outcome(
            status=status,
            error=error,
            adapter=AdapterResult(folder="adapter", sha256="b" * 64, bytes=9, archive=ARCHIVE) if has_results else None,
            metrics_csv=STORED if has_results else None,
            steps=TOTAL_STEPS,
            trained_tokens=60,
            train_seconds=1.0,
            peak_memory_bytes=1,
        )
        write_file(request, OUTCOME, outcome.model_dump_json().encode())
        return after

    return act


def die(detail: str = "exit code 137") -> Action:
    return lambda _request: RunStatus(RunState.ENDED, detail)


def write_file(request: RunRequest, name: str, content: bytes) -> None:
    path = Path(request.run_folder_uri, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def whole_run(_request: RunRequest) -> list[Action]:
    """Six steps in three chunks, a checkpoint in the middle, a good end."""
    return [
        write_chunk(1, message_event("started", "Training on 4 pairs"), step_event(1), step_event(2)),
        write_chunk(2, step_event(3), checkpoint_event(3), step_event(4)),
        write_chunk(3, step_event(5), step_event(6), message_event("finished", "Finished 6 steps")),
        write_outcome(),
    ]
