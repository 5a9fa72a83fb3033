"""A run's events as the job's: the message a person reads, and the metrics, flat."""

from datetime import UTC, datetime

from schemas.ids import RunId
from schemas.run_record import EvaluationMetrics, RunEvent, SftMetrics, StepMetrics
from service.db.events import NewEvent

Metrics = dict[str, float | int | str | None]


def job_event(event: RunEvent) -> NewEvent:
    return NewEvent(
        key=event.key,
        created_at=datetime.fromtimestamp(event.created_at, UTC),
        level=event.level,
        message=_metrics_message(event.step_metrics, event.evaluation) or event.message,
        data=_flat_metrics(event.step_metrics, event.evaluation) or _sft_metrics(event.sft_metrics),
        type="metrics" if event.step_metrics or event.evaluation else "message",
    )


def damaged_chunk_event(run_id: RunId, number: int, damage: str, *, now: datetime) -> NewEvent:
    return NewEvent(
        key=f"run:{run_id}:damaged:{number}",
        created_at=now,
        level="warn",
        message=f"Event chunk {number} of run {run_id} is damaged ({damage}); what could not be read is missing here.",
    )


def _metrics_message(step: StepMetrics | None, evaluation: EvaluationMetrics | None) -> str | None:
    parts: list[str] = []
    if step:
        parts += [f"training loss={step.train_loss:.4f}", f"margin={step.rewards_margin:.4f}"]
    if evaluation:
        parts += [f"validation loss={evaluation.valid_loss:.4f}", f"accuracy={evaluation.valid_rewards_accuracy:.2f}"]
    at = step or evaluation
    return f"Step {at.step}/{at.total_steps}: {', '.join(parts)}" if at else None


def _flat_metrics(step: StepMetrics | None, evaluation: EvaluationMetrics | None) -> Metrics | None:
    if not step and not evaluation:
        return None
    return {**(evaluation.model_dump() if evaluation else {}), **(step.model_dump() if step else {})}


def _sft_metrics(sft: SftMetrics | None) -> Metrics | None:
    """Under names of their own: no reader of DPO's steps takes one of these for its own."""
    if sft is None:
        return None
    told = sft.model_dump(exclude={"seconds_left", "trained_tokens", "step_seconds"})
    shared = {"trained_tokens": sft.trained_tokens, "step_seconds": sft.step_seconds}
    return {f"sft_{name}": value for name, value in told.items()} | shared
