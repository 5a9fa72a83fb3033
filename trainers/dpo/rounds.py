"""Passes of all workers side by side, where a sharded base makes every one of them a common act.

Each worker then makes as many as the one with the most: after its own, small ones without pairs of the job, which add
to no sum and no gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.objective import Objective

Pass = TypeVar("Pass")

SMALL_PAIR = PairTokens((0, 0), (0, 0), (1, 0), line=0, row_id=None)
"""Its ids are in every vocabulary."""


@dataclass(frozen=True, slots=True)
class PassShape:
    """What a pass asks of the base."""

    forwards: int
    """Without gradient, before anything with one."""
    has_gradient: bool
    small: PairTokens = SMALL_PAIR
    """Stands for pairs of this kind."""


def make_passes(objective: Objective, passes: Sequence[Pass], make: Callable[[Pass], None], shape: PassShape) -> None:
    """Make this worker's passes, all of which have that shape, on every worker.

    Raises: what `make` raises; with a sharded base MemoryError after the last pass, when one of this worker's ran out.
    """
    sharded = objective.policy.sharded
    if sharded is None:
        for each in passes:
            make(each)
        return
    idle, fits = partial(_make_small_pass, objective, shape), True
    for number in range(sharded.workers.largest(len(passes))):
        if fits and number < len(passes):
            fits = sharded.attempt(partial(make, passes[number]), idle)
        else:
            sharded.take_part(idle)
    if not fits:
        raise MemoryError


def _make_small_pass(objective: Objective, shape: PassShape) -> None:
    layout, pairs = objective.layout, [shape.small]
    with torch.no_grad():
        for _ in range(shape.forwards):
            layout.states(pairs)
    if shape.has_gradient:
        log_probs_N, _ = layout.states(pairs).log_probs()
        # Not `backward`: this gradient is nobody's.
        torch.autograd.grad(log_probs_N.sum(), objective.policy.parameters(), allow_unused=True)
