"""What runs trainers, as the dispatcher sees it. Every call is idempotent under the run id."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from schemas.ids import RunId

STOP_GRACE_S = 60.0
"""How long a run that was asked to stop may take to its next step, and to the checkpoint it leaves there."""


class BackendUnavailable(RuntimeError):
    """The backend did not answer; try again later, nothing is known about the run."""


class RunState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    """The processes are gone, for whatever reason: `outcome.json` says whether the run finished its work."""
    UNKNOWN = "unknown"
    """The backend has never heard of this run, or has forgotten it: not submitted, or lost with the cluster."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    state: RunState
    detail: str
    """What the backend says about the end: exit code, Ray's message; empty while it runs."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    run_id: RunId
    run_folder_uri: str
    workers: int
    gpus_per_worker: int


@dataclass(frozen=True, slots=True)
class Capacity:
    cpus: int
    gpus: int
    """Of the whole cluster, busy or not."""


class Backend(Protocol):
    def submit(self, request: RunRequest) -> None:
        """Start the run; already started under this id is fine. Raises: BackendUnavailable."""

    def status(self, run_id: RunId) -> RunStatus:
        """Raises: BackendUnavailable."""

    def stop(self, run_id: RunId) -> None:
        """Ask the run to end at its next step; unknown or ended is fine. Raises: BackendUnavailable.

        Asked again and again; after `STOP_GRACE_S` its processes are killed.
        """

    def log_tail(self, run_id: RunId) -> str:
        """The last lines the run printed, for a failure's message; empty when there are none to be had."""

    def capacity(self) -> Capacity:
        """Raises: BackendUnavailable."""
