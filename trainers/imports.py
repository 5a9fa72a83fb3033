"""A start is mostly importing torch, transformers and PEFT, and a quarter of that collecting garbage that is none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect nothing while the context lasts, and what was made in it never: modules stay to the process's end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
