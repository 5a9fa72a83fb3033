"""An executor without threads, for tests of what hands its work to a pool."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class InlineExecutor(Executor):
    """What is submitted is done at once; its future keeps what it raises, as a pool's does."""

    def submit(self, work: Callable[..., Result], /, *args: Any, **named: Any) -> Future[Result]:
        done: Future[Result] = Future()
        try:
            done.set_result(work(*args, **named))
        except BaseException as error:  # noqa: BLE001  # as a pool's thread
            done.set_exception(error)
        return done
