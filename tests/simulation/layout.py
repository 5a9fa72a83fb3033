"""What a history begins with, and what its things are called."""

from dataclasses import dataclass

from schemas.ids import ProjectId
from tests.simulation.dispatchers import Process
from tests.simulation.observer import Quota


@dataclass(frozen=True, slots=True)
class Layout:
    """What a history begins with."""

    dispatchers: int
    node_gpus: tuple[int, ...]
    quotas: tuple[Quota, ...]
    max_attempts: int = 3
    keeps_ids: bool = False
    """The embedded dispatcher's: after a restart it is the same to its leases."""


@dataclass(slots=True)
class Place:
    """A machine for a dispatcher, with a clock of its own."""

    name: str
    offset_s: float = 0.0
    process: Process | None = None


def project_id(number: int) -> ProjectId:
    return ProjectId(f"proj_{number}")


def short(identifier: str) -> str:
    """An id as a trace shows it."""
    head, dash, attempt = identifier.partition("-")[2].partition("-")
    return f"job {int(head[13:], 16)}{dash}{attempt}"
