"""Every random draw follows from the job's seed and from where it is made: nothing random has a state to save.

So a resumed run draws what the unbroken one drew, and the order of the data does not depend on the number of workers.
"""

import hashlib
from functools import lru_cache

import torch

ADAPTER_INIT = "adapter"
ORDER = "order"
DROPOUT = "dropout"
SFT = "sft"


def derive_seed(seed: int, purpose: str, *place: int) -> int:
    """Mix a seed, a purpose and a place (epoch, or step and worker) into 63 bits."""
    text = ":".join([str(seed), purpose, *map(str, place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def seed_adapter_init(seed: int) -> None:
    torch.manual_seed(derive_seed(seed, ADAPTER_INIT))


def seed_dropout(seed: int, *, step: int, rank: int) -> None:
    torch.manual_seed(derive_seed(seed, DROPOUT, step, rank))


@lru_cache(maxsize=1)
def epoch_order(pairs: int, *, seed: int, epoch: int) -> tuple[int, ...]:
    """Return a permutation of the pairs' indices, another one each epoch. Each of its steps asks for the same."""
    generator = torch.Generator().manual_seed(derive_seed(seed, ORDER, epoch))
    return tuple(torch.randperm(pairs, generator=generator).tolist())
