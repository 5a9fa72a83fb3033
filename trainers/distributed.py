"""The workers of a run: data parallel, one flat sum of gradients a step. Worker 0 alone writes.

Ray Train has initialised `torch.distributed` before the loop starts; under torchrun we do it, from its environment.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from trainers.errors import TrainerError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Workers:
    rank: int
    world_size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all workers."""
        total = values.clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        return total

    def all(self, holds: bool) -> bool:
        """Whether it holds on every worker; with several of them the host waits for the answer."""
        if self.world_size == 1:
            return holds
        failures = torch.tensor([float(not holds)], device=self.device)
        return not bool(self.sum(failures).item())

    def largest(self, number: int) -> int:
        """Return the largest of all workers' numbers; the host waits for the answer."""
        if self.world_size == 1:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest.item())

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum gradients in place; a worker without pairs in this step counts as zero."""
        if self.world_size == 1:
            return
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in parameters])
        dist.all_reduce(flat)
        parts = torch.split(flat, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def from_first(self, value: Value) -> Value:
        """Return worker 0's value on every worker."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """Return all workers' values, in the order of their ranks, on every worker."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def failing_together(workers: Workers) -> Iterator[None]:
    """Let what one worker may find wrong end the run on all of them: the others would wait for it in vain.

    Within, the workers meet nowhere, or all of them in the same places.
    Raises: TrainerError, that of the first worker which had one.
    """
    own: TrainerError | None = None
    try:
        yield
    except TrainerError as error:
        own = error
    first = next((error for error in workers.gather(own) if error is not None), None)
    if first is not None:
        raise first if own is None else own


@contextmanager
def open_workers(*, gpus_per_worker: int) -> Iterator[Workers]:
    """Join the process group, or be the only worker."""
    device = _device() if gpus_per_worker else torch.device("cpu")
    if device.type == "cuda":
        # Triton launches its kernels there, and objects are sent through it.
        torch.cuda.set_device(device)
    joined_here = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if joined_here:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.is_initialized():
            yield Workers(dist.get_rank(), dist.get_world_size(), device)
        else:
            yield Workers(0, 1, device)
    finally:
        if joined_here:
            dist.destroy_process_group()


def _device() -> torch.device:
    """The GPU of this worker: that of its local rank, where it is shown several.

    torchrun shows each worker all of the machine's, Ray those of all the group's workers there; a driver sees its own.
    """
    if torch.cuda.device_count() > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cuda", 0)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
