"""What a job needs of the cluster, and whether that is there: in the whole cluster, and free of our own runs.

Only our runs are counted: what else a shared cluster does, Ray queues for. GPUs are counted one by one. A run on CPUs
takes every core it can get, so two beside each other would only slow both: they are let run one by one per machine's
worth of cores.
"""

from dataclasses import dataclass
from typing import Self

from schemas.fine_tuning import CreateJobRequest, ResourceOptions, Sharding
from service.backends.backend import Capacity
from service.db.queue import Held
from service.db.tables import RunRow
from service.dispatcher.context import JobFailure
from service.jobs.resources import resolve_gpus
from service.registry import BaseModelEntry

CPUS_OF_ONE_CPU_RUN = 32
SHARDS_BASE: dict[Sharding, bool | None] = {"auto": None, "full": True, "none": False}


@dataclass(frozen=True, slots=True)
class Requirements:
    workers: int
    gpus_per_worker: int

    @classmethod
    def of(cls, run: RunRow) -> Self:
        """What the run was admitted with and is counted for, whatever the registry says since."""
        return cls(run.workers, run.gpus // run.workers)

    @property
    def gpus(self) -> int:
        return self.workers * self.gpus_per_worker


def resolve_requirements(asked: ResourceOptions, entry: BaseModelEntry) -> Requirements:
    gpus = resolve_gpus(asked, entry)
    return Requirements(gpus, 1) if gpus else Requirements(asked.workers or 1, 0)


def resolve_sharding(request: CreateJobRequest, needed: Requirements) -> bool | None:
    """Whether the base is sharded; None: the trainer sees whether it fits. One worker has nobody to share with, and a
    base in 4 bits cannot be sharded."""
    if needed.workers == 1 or request.method.dpo.quantization is not None:
        return False
    return SHARDS_BASE[request.resources.sharding]


def refuse_reason(needed: Requirements, capacity: Capacity) -> JobFailure | None:
    """Say why the cluster can never run this, or None."""
    if needed.gpus > capacity.gpus:
        there = "none" if capacity.gpus == 0 else f"{capacity.gpus} in all"
        return JobFailure(
            "insufficient_resources",
            f"The job needs {needed.gpus} GPU(s) and the cluster has {there}; lower resources.gpus (0 trains on CPU).",
            "resources.gpus",
        )
    if not needed.gpus and needed.workers > capacity.cpus:
        return JobFailure(
            "insufficient_resources",
            f"The job asks for {needed.workers} workers and the cluster has {capacity.cpus} CPU core(s); "
            "lower resources.workers.",
            "resources.workers",
        )
    return None


def has_room(needed: Requirements, held: Held, capacity: Capacity) -> bool:
    """Whether the job fits beside what the open runs hold already."""
    if needed.gpus:
        return held.gpus + needed.gpus <= capacity.gpus
    return held.cpu_runs < cpu_places(capacity)


def cpu_places(capacity: Capacity) -> int:
    """How many runs on CPUs may be beside each other."""
    return max(1, capacity.cpus // CPUS_OF_ONE_CPU_RUN)
