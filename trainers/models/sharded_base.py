"""A base in parts: each worker holds its share of every decoder layer, and a layer is whole while it computes (FSDP2).

What lies outside the layers (embeddings, head, last norm) is needed from a pass's first moment to its last, so sharing
it out would save nothing at the peak: it is whole on every worker. So are the adapters, whose gradients are summed as
ever. A pass is thus a sequence of gathers, the same for every pass of its kind, which all workers make together.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from trainers.distributed import Workers
from trainers.errors import UnusableModel
from trainers.pass_memory import FellOutOfStep, is_out_of_memory


class ShardedBase:
    """What holds the workers' passes in step."""

    def __init__(self, root: FSDPModule, gathers: "_Gathers", workers: Workers) -> None:
        self.workers = workers
        self._root = root
        self._gathers = gathers

    def attempt(self, make: Callable[[], None], idle: Callable[[], None]) -> bool:
        """Make a pass. Returns whether there was memory for it; where not, the others did not notice.

        They are in the middle of it and wait for this worker's share of each layer that is still to come: it makes
        `idle`, a small pass of the same kind, of whose gathers those are left out that were already made.
        Raises: FellOutOfStep.
        """
        self._gathers.begin()
        if _has_memory_for(make):
            return True
        self.reset()
        if self.workers.device.type == "cuda":
            torch.cuda.empty_cache()
        self._gathers.begin_again()
        self.take_part(idle)
        return False

    def take_part(self, idle: Callable[[], None]) -> None:
        """Make a small pass for the others' sake. Raises: FellOutOfStep, when there is no memory even for that."""
        if not _has_memory_for(idle):
            raise FellOutOfStep("no memory for the smallest pass beside another worker's; the run has to start again")

    def reset(self) -> None:
        """Give up a pass that has raised."""
        if self._gathers.is_in_use:  # FSDP has no state to reset before its first pass
            self._root.reset_iter_state()


def shard_base(model: PreTrainedModel, workers: Workers) -> ShardedBase:
    """Leave this worker its share of the layers, on its device; everything else is moved there whole.

    The model, with its adapters, is the same on every worker. One layer at a time is whole on the device.
    Raises: UnusableModel.
    """
    layers = _decoder_layers(model)
    if not layers:
        raise UnusableModel("the model has no layers that can be sharded; set resources.sharding to none")
    mesh = init_device_mesh(workers.device.type, (workers.world_size,))
    gathers, adapters = _Gathers(), adapter_parameters(model)
    shards = []
    for layer in layers:
        shard = fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapters)
        shard.set_custom_all_gather(gathers)
        shards.append(shard)
    whole = {parameter for parameter in model.parameters() if not isinstance(parameter, DTensor)}
    root = fully_shard(model.base_model, mesh=mesh, ignored_params=whole)
    for parameter in whole:
        parameter.data = parameter.data.to(workers.device)
    _prefetch_in_fixed_order(shards)
    return ShardedBase(root, gathers, workers)


def adapter_parameters(model: nn.Module) -> set[Parameter]:
    """Return the parameters of all adapters, frozen ones too."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return {
        parameter
        for layer in layers
        for name in layer.adapter_layer_names
        for parameter in getattr(layer, name).parameters()
    }


def base_bytes(model: nn.Module) -> tuple[int, int]:
    """Return what this worker holds of the base between two passes, and what the whole base is."""
    base = set(model.parameters()) - adapter_parameters(model)
    held = [parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in base]
    return sum(tensor.nbytes for tensor in held), sum(tensor.nbytes for tensor in base)


class _Gathers(DefaultAllGather):
    """Counts the gathers of the pass at hand."""

    def __init__(self) -> None:
        self.is_in_use = False
        self._made = 0
        self._left_out = 0

    def begin(self) -> None:
        self._made = self._left_out = 0

    def begin_again(self) -> None:
        """Leave out as many as were made since the beginning: what they would have brought is not needed."""
        self._left_out = self._made

    def allocate(self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        self.is_in_use = True
        return super().allocate(size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> dist.Work | None:
        if self._left_out > 0:
            self._left_out -= 1
            return None
        self._made += 1
        return super().__call__(output_tensor, input_tensor, group, async_op)


def _decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    return [module for module in model.base_model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _prefetch_in_fixed_order(shards: list[FSDPModule]) -> None:
    """In the backward fetch the layer before. By itself FSDP goes by the passes since the last backward, and those may
    differ after one that was given up; the first layer fetches itself, which is there, since none would mean by itself.
    """
    shards[0].set_modules_to_backward_prefetch([shards[0]])
    for before, after in pairwise(shards):
        after.set_modules_to_backward_prefetch([before])


def _has_memory_for(make: Callable[[], None]) -> bool:
    try:
        make()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
