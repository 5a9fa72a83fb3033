"""A cluster that takes runs at once and never ends one, and a dispatcher's context over it."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from schemas.ids import RunId
from service.backends.backend import Backend, BackendUnavailable, Capacity, RunRequest, RunState, RunStatus
from service.clock import utc_now
from service.db.engine import Database
from service.dispatcher.context import DispatchContext
from service.files.validation_process import validate_in_process
from service.identifiers import new_dispatcher_id
from service.registry import BaseModelEntry
from service.storage.folder import FolderStore

NODES = 1_000
"""Of one GPU each."""
MODEL = "bench"
REGISTRY = {MODEL: BaseModelEntry(uri="/models/bench", max_length=512, base_learning_rate=5e-5, gpus=1)}


@dataclass(slots=True)
class SimulatedCluster:
    runs: set[RunId] = field(default_factory=set)

    def submit(self, request: RunRequest) -> None:
        self.runs.add(request.run_id)

    def status(self, run_id: RunId) -> RunStatus:
        return RunStatus(RunState.RUNNING if run_id in self.runs else RunState.UNKNOWN, "")

    def stop(self, run_id: RunId) -> None:
        self.runs.discard(run_id)

    def log_tail(self, _run_id: RunId) -> str:
        return ""

    def capacity(self) -> Capacity:
        return Capacity(cpus=NODES, gpus=NODES)


class AwayCluster(SimulatedCluster):
    """Under it jobs are validated and wait."""

    def capacity(self) -> Capacity:
        raise BackendUnavailable("the benchmark's jobs wait")


def dispatch_context(database: Database, store: FolderStore, folder: Path, backend: Backend) -> DispatchContext:
    return DispatchContext(
        database=database,
        store=store,
        validate_file=partial(validate_in_process, str(folder), s3_endpoint_url=None),
        backend=backend,
        registry=REGISTRY,
        clock=utc_now,
        max_attempts=3,
        dispatcher_id=new_dispatcher_id(),
        lease_s=30,
    )
