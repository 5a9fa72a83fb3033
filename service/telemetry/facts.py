"""What happened, once it is committed: the one form in which the database tells logs, metrics and traces."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from schemas.fine_tuning import JobStatus

RunEnding = Literal["succeeded", "failed", "cancelled", "stopped", "lost"]
"""`stopped`: on purpose, and another run goes on from its checkpoint. `lost`: the same, without anyone's purpose."""
DeliveryEnding = Literal["delivered", "retried", "failed"]


@dataclass(frozen=True, slots=True)
class JobMoved:
    job_id: str
    project_id: str
    seen: JobStatus | None
    """None: the job was created."""
    to: JobStatus


@dataclass(frozen=True, slots=True)
class RunEnded:
    run_id: str
    job_id: str
    ending: RunEnding
    began_at: datetime
    ended_at: datetime
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class EventsIngested:
    lags_s: tuple[float, ...]
    """Of each event, from its own time until now."""


@dataclass(frozen=True, slots=True)
class DeliveryAttempted:
    ending: DeliveryEnding


Fact = JobMoved | RunEnded | EventsIngested | DeliveryAttempted
Tell = Callable[[Fact], None]


def tell_nobody(_fact: Fact) -> None:
    """For databases that nobody watches."""
