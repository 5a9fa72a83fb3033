"""Which pairs meet in which step, on which worker, in which pass: pure functions of seed and lengths.

The steps are the same for any number of workers; how a step is cut below that never changes its mathematics.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainers.data.chat_tokens import PairTokens
from trainers.seeding import epoch_order


@dataclass(frozen=True, slots=True)
class StepPlan:
    pairs: int
    """Pairs in the training set."""
    batch_size: int
    n_epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.pairs / self.batch_size)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.n_epochs

    def batch(self, step: int) -> list[int]:
        """Indices of the pairs of `step`, which counts from 1; an epoch's last batch may be smaller."""
        epoch, number = divmod(step - 1, self.steps_per_epoch)
        order = epoch_order(self.pairs, seed=self.seed, epoch=epoch)
        return list(order[number * self.batch_size : (number + 1) * self.batch_size])

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0


def shard(indices: Sequence[int], pairs: Sequence[PairTokens], *, rank: int, world_size: int) -> list[int]:
    """Return this worker's part, balanced by tokens: the longest pair goes to whoever has least."""
    parts: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for index in sorted(indices, key=lambda index: (-pairs[index].packed_length, index)):
        lightest = loads.index(min(loads))
        parts[lightest].append(index)
        loads[lightest] += pairs[index].packed_length
    return parts[rank]


def micro_batches(
    indices: Sequence[int], pairs: Sequence[PairTokens], *, token_budget: int, pads: bool
) -> list[list[int]]:
    """Cut into passes of at most `token_budget` tokens each; a longer pair gets a pass of its own.

    Where rows are padded, each pair has as many as its pass's longest: one long pair makes all the others long.
    """
    passes: list[list[int]] = [[]]
    longest = packed = 0
    for index in indices:
        pair = pairs[index]
        longest, packed = max(longest, pair.longest_row), packed + pair.packed_length
        if passes[-1] and (longest * (len(passes[-1]) + 1) if pads else packed) > token_budget:
            passes.append([])
            longest, packed = pair.longest_row, pair.packed_length
        passes[-1].append(index)
    return passes if passes[-1] else []


def longest_pass(pairs: Sequence[PairTokens], *, pads: bool) -> int:
    """Return the tokens of the longest pair alone, as `micro_batches` counts them."""
    return max(pair.longest_row if pads else pair.packed_length for pair in pairs)
