"""Out of memory in a pass: noticed on every worker at once, so that all of them can make the step again, smaller."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainers.distributed import Workers

SAID_OF_MEMORY = (
    "DefaultCPUAllocator: ",  # the host's, after the place in torch's source
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)
"""What plain RuntimeErrors say when there is no memory left: not every allocation is torch's own on the device."""


class RanOutOfMemory(Exception):
    """A worker, perhaps another one, had no memory for a pass."""


class FellOutOfStep(Exception):
    """A worker cannot take part in a pass that the others are in the middle of: they have to end, too."""


@contextmanager
def all_fit(workers: Workers) -> Iterator[None]:
    """Do something that allocates and has no collectives of its own, but for more of these contexts and `make_passes`.

    Raises: RanOutOfMemory, on every worker when one ran out.
    """
    fits = True
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    # The error is gone here, and with it the frames that held the pass's tensors.
    if not workers.all(fits):
        if workers.device.type == "cuda":
            torch.cuda.empty_cache()
        raise RanOutOfMemory


def is_out_of_memory(error: BaseException) -> bool:
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in told for words in SAID_OF_MEMORY)
