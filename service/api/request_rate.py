"""How often a project asks: counted in each API process for itself, over sliding windows.

In the database it would make each poll a write. Behind n processes a project gets n times its limit at most.
"""

import math
import time
from dataclasses import dataclass, field

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.db.projects import OpenKey
from service.errors import TooManyRequests


def _in_memory() -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(MemoryStorage())


@dataclass(frozen=True, slots=True)
class RequestRate:
    _counted: SlidingWindowCounterRateLimiter = field(default_factory=_in_memory)

    def count(self, key: OpenKey) -> None:
        """Raises: TooManyRequests, for one over the limit."""
        for item, noun in _items(key):
            if not self._counted.hit(item, key.project_id):
                resets_at = self._counted.get_window_stats(item, key.project_id).reset_time
                raise TooManyRequests(
                    f"The project may send {item.amount} request(s) a {noun} and has sent as many; poll less often, "
                    "or ask the operator for more",
                    retry_after_s=max(1, math.ceil(resets_at - time.time())),
                )


def _items(limit: OpenKey) -> list[tuple[RateLimitItem, str]]:
    items: list[tuple[RateLimitItem, str]] = []
    if limit.max_requests_per_1_minute is not None:
        items.append((RateLimitItemPerMinute(limit.max_requests_per_1_minute), "minute"))
    if limit.max_requests_per_1_day is not None:
        items.append((RateLimitItemPerDay(limit.max_requests_per_1_day), "day"))
    return items
