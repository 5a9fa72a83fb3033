"""How many tokens a pass may have. Halving it costs time, and without dropout nothing else: a step's sums are the same.

Dropout is drawn pass by pass, so a checkpoint holds the budget: a resumed run cuts its passes as the unbroken one does,
whatever memory its attempt finds free, and need not run out of it again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers
from trainers.dpo.plan import micro_batches, shard
from trainers.errors import MORE_ROOM, NotEnoughMemory
from trainers.events import EventLog, warning
from trainers.pass_memory import RanOutOfMemory

Result = TypeVar("Result")

BUDGET = "token_budget"


class TokenBudget:
    """The same on every worker at any time."""

    def __init__(self, tokens: int, workers: Workers, events: EventLog, *, pads: bool) -> None:
        self.tokens = workers.from_first(tokens)
        self._pads = pads
        self._workers = workers
        self._events = events

    def checkpoint_files(self) -> dict[str, bytes]:
        return {BUDGET: str(self.tokens).encode()}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Go on as at a checkpoint; one of an earlier version has no budget."""
        if BUDGET in files:
            self.tokens = int(files[BUDGET])

    def cut(self, indices: Sequence[int], pairs: Sequence[PairTokens]) -> list[list[int]]:
        """Cut one worker's part of a step into passes."""
        return micro_batches(indices, pairs, token_budget=self.tokens, pads=self._pads)

    def fit(
        self, attempt: Callable[[], Result], indices: Sequence[int], pairs: Sequence[PairTokens], *, during: str
    ) -> Result:
        """Call `attempt`, which passes over `indices`, with smaller and smaller budgets until it has enough memory.

        Raises: NotEnoughMemory when a single pair is too much.
        """
        while True:
            try:
                return attempt()
            except RanOutOfMemory:
                self._lower(indices, pairs, during)

    def _lower(self, indices: Sequence[int], pairs: Sequence[PairTokens], during: str) -> None:
        shards = [
            shard(indices, pairs, rank=rank, world_size=self._workers.world_size)
            for rank in range(self._workers.world_size)
        ]
        smaller = lower_budget(shards, pairs, token_budget=self.tokens, pads=self._pads)
        if smaller is None:
            raise NotEnoughMemory(_too_long(max((pairs[index] for index in indices), key=_packed_length), during))
        text = f"Out of memory {during}: passes have at most {smaller:,} tokens from now on, not {self.tokens:,}"
        self._events.tell(warning(f"memory:{during}:{smaller}", f"{text}; results stay the same"))
        self.tokens = smaller


def lower_budget(
    shards: Sequence[Sequence[int]], pairs: Sequence[PairTokens], *, token_budget: int, pads: bool
) -> int | None:
    """Halve the budget until some worker's pass is cut further; None when each pass has one pair already."""

    def cut(budget: int) -> list[list[list[int]]]:
        return [micro_batches(mine, pairs, token_budget=budget, pads=pads) for mine in shards]

    before = cut(token_budget)
    if all(len(part) == 1 for passes in before for part in passes):
        return None
    smaller = token_budget // 2
    while cut(smaller) == before:
        smaller //= 2
    return smaller


def _packed_length(pair: PairTokens) -> int:
    return pair.packed_length


def _too_long(pair: PairTokens, during: str) -> str:
    return (
        f"out of memory {during}, although each pass has a single pair; the longest one, {pair.name}, has "
        f"{pair.packed_length:,} tokens. Lower max_length; {MORE_ROOM}"
    )
