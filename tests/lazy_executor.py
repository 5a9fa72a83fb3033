"""An executor without threads, for tests in which one thing happens after the other."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class LazyExecutor(Executor):
    """What is submitted is done by whoever asks for its result, who also gets whatever it raises."""

    def submit(self, work: Callable[..., Result], /, *args: Any, **named: Any) -> Future[Result]:
        return _Later(lambda: work(*args, **named))


class _Later(Future[Result]):
    def __init__(self, work: Callable[[], Result]) -> None:
        super().__init__()
        self._work = work

    def result(self, timeout: float | None = None) -> Result:
        return self._work()
