"""Whether what the service needs can be reached: one look at a time, on a thread of its own, shared for a moment.

Anybody may ask, and a look costs the database, the store and the cluster something; where one hangs, so does it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from service.api.slow_work import SlowLane

ReadinessCheck = Callable[[], str | None]
"""Returns None when all is well, else what is wrong, in words that strangers may read."""

FRESH_S = 1.0
LONGEST_WAIT_S = 10.0
TOO_LONG = f"the checks take longer than {LONGEST_WAIT_S:g} s"


class Readiness:
    """Of one event loop."""

    def __init__(self, checks: Mapping[str, ReadinessCheck]) -> None:
        self.checks = checks
        self._lane = SlowLane()
        self._look: asyncio.Task[list[str]] | None = None
        self._fresh_until = 0.0

    async def troubles(self) -> list[str]:
        """What is wrong now, or was a moment ago."""
        if self._look is None or (self._look.done() and time.monotonic() >= self._fresh_until):
            self._look = asyncio.create_task(self._look_now())
        try:
            return await asyncio.wait_for(asyncio.shield(self._look), LONGEST_WAIT_S)
        except TimeoutError:
            return [TOO_LONG]

    async def _look_now(self) -> list[str]:
        try:
            return await self._lane.run(self._check_all)
        finally:
            self._fresh_until = time.monotonic() + FRESH_S

    def _check_all(self) -> list[str]:
        found = ((name, check()) for name, check in self.checks.items())
        return [f"{name}: {trouble}" for name, trouble in found if trouble is not None]
