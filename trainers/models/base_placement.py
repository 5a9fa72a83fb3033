"""Where the base goes: whole on every worker's device, or in shares over the workers.

With more than one worker it is loaded on the host, since a share is all that a device may have room for.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from schemas.run_spec import RunSpec
from trainers.distributed import Workers
from trainers.free_memory import free_bytes
from trainers.models.memory_plan import estimate_activations, fits_whole
from trainers.models.sharded_base import base_bytes

HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class BasePlacement:
    workers: Workers
    shards: bool | None
    """None: the whole base decides it by its size."""
    free_bytes: int
    """On this worker's device before the base was loaded."""

    @classmethod
    def of(cls, spec: RunSpec, workers: Workers) -> "BasePlacement":
        cannot_shard = workers.world_size == 1 or spec.quantization is not None
        return cls(workers, False if cannot_shard else spec.shards_base, free_bytes(workers.device))

    @property
    def load_to(self) -> torch.device:
        return self.workers.device if self.shards is False else HOST

    def decide(self, base: PreTrainedModel, *, longest_pair: int) -> bool:
        """Whether the base is to be sharded, the same on every worker; if not, it is moved to the device."""
        shards = self.shards
        if shards is None:
            shards = not self.workers.all(self._fits(base, longest_pair))
        if not shards and self.load_to != self.workers.device:
            torch.nn.Module.to(base, self.workers.device)
        return shards

    def _fits(self, base: PreTrainedModel, longest_pair: int) -> bool:
        activations = estimate_activations(base.config, dtype_bytes=base.dtype.itemsize, is_padded=False)
        _, whole_bytes = base_bytes(base)
        return fits_whole(whole_bytes, activations, longest_pair=longest_pair, free_bytes=self.free_bytes)
