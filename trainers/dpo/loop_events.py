"""What the loop tells of a step and of a checkpoint."""

from schemas.run_record import CheckpointRecord, RunEvent
from trainers.checkpoints import stored_file
from trainers.dpo.progress import HistoryEntry
from trainers.events import message
from trainers.models.lora import ADAPTER_WEIGHTS


def step_event(entry: HistoryEntry) -> RunEvent:
    step, evaluation = entry.step, entry.evaluation
    validation = "" if evaluation is None else f", validation loss {evaluation.valid_loss:.4f}"
    text = f"Step {step.step}/{step.total_steps}: training loss {step.train_loss:.4f}{validation}"
    told = message(f"step:{step.step}", text)
    return told.model_copy(update={"step_metrics": step, "evaluation": evaluation})


def checkpoint_event(entry: HistoryEntry, weights: bytes, *, adapter: str, why: str) -> RunEvent:
    """Tell of an adapter that is kept in the folder `adapter` of the run folder."""
    step, evaluation = entry.step, entry.evaluation
    stored = stored_file(ADAPTER_WEIGHTS, weights)
    record = CheckpointRecord(
        step=step.step,
        adapter=adapter,
        adapter_sha256=stored.sha256,
        adapter_bytes=stored.bytes,
        train_loss=step.train_loss,
        train_mean_token_accuracy=step.train_mean_token_accuracy,
        valid_loss=None if evaluation is None else evaluation.valid_loss,
        valid_mean_token_accuracy=None if evaluation is None else evaluation.valid_mean_token_accuracy,
    )
    told = message(f"checkpoint:{step.step}", f"Checkpoint saved at step {step.step}, {why}")
    return told.model_copy(update={"checkpoint": record})
