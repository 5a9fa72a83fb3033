"""Runs of two workers, one after the other in one pair of processes: `python -m tests.two_worker_runs FOLDER`, under
torchrun, makes those of the folder's plan, which tells where worker 1 runs out of memory, and for how many tokens.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from schemas.run_record import StepMetrics
from tests.cramped_layout import ask_the_host_for_too_much, cramped
from trainers.dpo.optimizer_step import OptimizerStep
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.progress import Progress
from trainers.entrypoint import run
from trainers.errors import UnusableModel
from trainers.exit_codes import leave
from trainers.models import packed_attention
from trainers.models.fused_lora import _LoraLinears

PLAN = "plan.json"
Place = Literal["anywhere", "before the pass", "inside its forward", "inside its backward"]


@dataclass(frozen=True, slots=True)
class Planned:
    folder: str
    cramped_at: Place | None = None
    room_tokens: int = 40
    """More than the longest of the runs' pairs has, less than two of them have."""
    free_bytes: int | None = None
    """What devices tell; None: what they have."""
    lost_at: int | None = None
    """The step before which both workers are lost."""
    is_unusable: bool = False
    """Worker 1 cannot use the model."""


def write_plan(folder: Path, planned: list[Planned]) -> None:
    (folder / PLAN).write_text(json.dumps([asdict(each) for each in planned]))


@contextmanager
def out_of_memory(planned: Planned) -> Iterator[None]:
    """Let worker 1 run out of memory in passes of more tokens than there is room for."""
    room = planned.room_tokens
    match planned.cramped_at if os.environ["RANK"] == "1" else None:
        case None:
            context: Any = nullcontext()
        case "anywhere":
            states = cramped(room, allocate=ask_the_host_for_too_much, counts_all=True)
            context = patch.object(PackedLayout, "states", states)
        case "before the pass":
            states = cramped(room, allocate=ask_the_host_for_too_much)
            context = patch.object(PackedLayout, "states", states)
        case "inside its forward":
            attend = _at_the_third_call(packed_attention.attend_on_cpu, lambda query, *_: query.shape[2] > room)
            context = patch.object(packed_attention, "attend_on_cpu", attend)
        case "inside its backward":
            backward = _at_the_third_call(_LoraLinears.backward, lambda _, gradient_NO, *__: len(gradient_NO) > room)
            context = patch.object(_LoraLinears, "backward", staticmethod(backward))
    with context:
        yield


def _at_the_third_call(plain: Callable[..., Any], is_large: Callable[..., bool]) -> Callable[..., Any]:
    """Not at the first one: the pass is under way. Calls that are not large do not count."""
    large: list[None] = []

    def call(*arguments: Any) -> Tensor:
        if is_large(*arguments):
            large.append(None)
            if len(large) % 3 == 0:
                ask_the_host_for_too_much()
        return plain(*arguments)

    return call


@contextmanager
def free_memory(planned: Planned) -> Iterator[None]:
    free = planned.free_bytes
    if free is None:
        yield
        return
    with (
        patch("trainers.models.base_placement.free_bytes", return_value=free),
        patch("trainers.dpo.prepare.free_bytes", return_value=free),
    ):
        yield


@contextmanager
def loss_of_the_workers(planned: Planned) -> Iterator[None]:
    plain = OptimizerStep.make

    def make(optimizer_step: OptimizerStep, step: int, progress: Progress) -> tuple[StepMetrics, bool]:
        if step == planned.lost_at:
            raise OSError("the node went away")
        return plain(optimizer_step, step, progress)

    with (
        nullcontext() if planned.lost_at is None else pytest.raises(OSError, match="went away"),
        patch.object(OptimizerStep, "make", make),
    ):
        yield


@contextmanager
def unusable_model(planned: Planned) -> Iterator[None]:
    if not planned.is_unusable or os.environ["RANK"] != "1":
        yield
        return
    with patch("trainers.dpo.prepare.load_causal_lm", side_effect=UnusableModel("worker 1 cannot read it")):
        yield


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for each in json.loads((folder / PLAN).read_text()):
        planned = Planned(**each)
        with out_of_memory(planned), free_memory(planned), loss_of_the_workers(planned), unusable_model(planned):
            run(planned.folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave(0)
