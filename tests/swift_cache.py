"""What Swift's proxy keeps of accounts and containers, in its own process: memcached's part, without a memcached.

Without any, the proxy asks the account's and the container's server anew at each request, which no Swift in use does.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ProcessCache:
    """As much of `swift.common.memcached.MemcacheRing` as this proxy's pipeline asks for."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, float]] = {}

    def get(self, key: str, **_options: Any) -> Any:
        value, until = self._kept.get(key, ("null", 0.0))
        return json.loads(value) if time.monotonic() < until else None

    def set(self, key: str, value: Any, *, time: float = 0, **_options: Any) -> None:
        self._kept[key] = (json.dumps(value), _end_of(time))

    def delete(self, key: str, **_options: Any) -> None:
        self._kept.pop(key, None)


def _end_of(seconds: float) -> float:
    """Of what is kept that long; 0: for ever, as in memcached."""
    return time.monotonic() + seconds if seconds else float("inf")


def filter_factory(_global: dict[str, str], **_local: str) -> Callable[[Application], Application]:
    """Named by the proxy's configuration, in place of Swift's own `cache`."""
    cache = ProcessCache()

    def with_cache(application: Application) -> Application:
        def answer(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environment["swift.cache"] = cache
            return application(environment, start_response)

        return answer

    return with_cache
