"""Requests that are long by their nature wait on a few threads of their own.

The others share Starlette's forty, which a few dozen strangers' silent webhooks, files of gigabytes, or deletes in a
bucket that hangs, would all hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

AT_ONCE = 4

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class SlowLane:
    """Who comes while `AT_ONCE` are at work waits in turn, holding no thread."""

    _limiter: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(AT_ONCE))

    async def run(self, work: Callable[[], Answer]) -> Answer:
        return await to_thread.run_sync(work, limiter=self._limiter)
