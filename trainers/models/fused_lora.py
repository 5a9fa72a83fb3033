"""LoRA layers without their temporaries: base and adapter products accumulate into one output.

PEFT's layer allocates and adds a full activation for the adapter's product, its scaling and its sum, forward and
backward; those passes over memory cost as much as the products. Here they are `addmm_` into the base's own result, and
layers that read the same input (queries, keys and values; gate and up) are computed as one, so that it is read once and
its gradient has one place to add up in. Only plain LoRA on a frozen `nn.Linear` without dropout is fused; every other
layer keeps PEFT's forward. Where a pass raises between two layers of a group, the outputs of those that are not called
any more are let go as their module is left.

N = tokens, I = inputs, O = outputs, R = rank, S = ranks of all layers of a group
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.models.last_layer import last_layer_of

SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names under one module. A layer that is called with another input is computed by itself."""


def fuse_lora_layers(model: PeftModel) -> int:
    """Replace the forward of every LoRA layer that can be fused; return how many were."""
    fused = 0
    for parent, layers in _group_layers(model):
        group = _Group(layers)
        for place, layer in enumerate(layers):
            layer.forward = _FusedForward(layer, group, place)  # type: ignore[method-assign]
        if len(layers) > 1:
            parent.register_forward_hook(group.forget, always_call=True)
        fused += len(layers)
    return fused


def _group_layers(model: PeftModel) -> Iterator[tuple[nn.Module, list[LoraLinear]]]:
    """Yield the layers that read the same input, and the module that they stand in."""
    last = last_layer_of(cast(PreTrainedModel, model.get_base_model()))
    # In the last layer fewer tokens have queries than keys.
    narrowed = {id(getattr(getattr(last, "self_attn", None), "q_proj", None))}
    for parent in model.modules():
        layers = {name: child for name, child in parent.named_children() if _is_plain(child)}
        for names in SAME_INPUT:
            together = [name for name in names if name in layers and id(layers[name]) not in narrowed]
            if together:
                yield parent, [cast(LoraLinear, layers.pop(name)) for name in together]
        for layer in layers.values():
            yield parent, [cast(LoraLinear, layer)]


@dataclass(slots=True)
class _Group:
    """Layers of one input. The first that is called computes all, the others find their output ready."""

    layers: Sequence[LoraLinear]
    _input: Tensor | None = field(default=None, init=False)
    _outputs: dict[int, Tensor] = field(default_factory=dict, init=False)

    def compute(self, place: int, x: Tensor, adapter: str) -> Tensor:
        if x is not self._input or place not in self._outputs:
            self._input, self._outputs = x, self._compute_all(x, adapter)
        output = self._outputs.pop(place)
        if not self._outputs:
            self._input = None
        return output

    def forget(self, *_: Any) -> None:
        """Let go of what no layer has asked for: behind it stands the graph of the whole pass up to here."""
        self._input = None
        self._outputs.clear()

    def _compute_all(self, x: Tensor, adapter: str) -> dict[int, Tensor]:
        x_NI = x.reshape(-1, x.shape[-1])
        weights = [
            (layer.base_layer.weight, layer.base_layer.bias, layer.lora_A[adapter].weight, layer.lora_B[adapter].weight)
            for layer in self.layers
        ]
        scalings = tuple(layer.scaling[adapter] for layer in self.layers)
        outputs = _LoraLinears.apply(x_NI, scalings, *(tensor for layer in weights for tensor in layer))  # type: ignore[no-untyped-call]
        return {place: y_NO.view(*x.shape[:-1], -1) for place, y_NO in enumerate(outputs)}


class _FusedForward:
    """The layer's new forward. PEFT's own still serves a layer without exactly one active adapter."""

    def __init__(self, layer: LoraLinear, group: _Group, place: int) -> None:
        self._layer, self._group, self._place = layer, group, place
        self._plain_forward = layer.forward

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layer
        if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
            return self._plain_forward(x, *args, **kwargs)
        return self._group.compute(self._place, x, layer.active_adapters[0])


class _LoraLinears(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T for each layer, with W and b frozen. Takes W, b, A, B of one after the other."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, scalings: tuple[float, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        # Biases alone may be absent.
        weights, biases, a_RIs, b_ORs = (cast(Sequence[Tensor], tensors[first::4]) for first in range(4))
        down_NS = x_NI @ _stack(a_RIs, x_NI.dtype).T
        outputs = []
        for weight_OI, bias_O, b_OR, rows, scaling in zip(weights, biases, b_ORs, _ranks(a_RIs), scalings, strict=True):
            y_NO = nn.functional.linear(x_NI, weight_OI, bias_O)
            outputs.append(y_NO.addmm_(down_NS[:, rows], b_OR.to(x_NI.dtype).T, alpha=scaling))
        ctx.save_for_backward(x_NI, down_NS, *weights, *a_RIs, *b_ORs)
        ctx.scalings = scalings
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, down_NS, *rest = ctx.saved_tensors
        count = len(upstream)
        weights, a_RIs, b_ORs = rest[:count], rest[count : 2 * count], rest[2 * count :]
        dtype, ranks = x_NI.dtype, _ranks(a_RIs)
        ddown_NS = torch.empty_like(down_NS)
        gradients: list[Tensor | None] = []
        for dy_NO, b_OR, rows, scaling in zip(upstream, b_ORs, ranks, ctx.scalings, strict=True):
            ddown_NS[:, rows] = (dy_NO @ b_OR.to(dtype)).mul_(scaling)
        da_SI = ddown_NS.T @ x_NI
        for dy_NO, a_RI, b_OR, rows, scaling in zip(upstream, a_RIs, b_ORs, ranks, ctx.scalings, strict=True):
            db_OR = (dy_NO.T @ down_NS[:, rows]).mul_(scaling).to(b_OR.dtype)
            gradients += [None, None, da_SI[rows].to(a_RI.dtype), db_OR]
        if not ctx.needs_input_grad[0]:
            return None, None, *gradients
        dx_NI = upstream[0] @ weights[0]
        for dy_NO, weight_OI in zip(upstream[1:], weights[1:], strict=True):
            dx_NI.addmm_(dy_NO, weight_OI)
        dx_NI.addmm_(ddown_NS, _stack(a_RIs, dtype))
        return dx_NI, None, *gradients


def _stack(a_RIs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([a_RI.to(dtype) for a_RI in a_RIs]) if len(a_RIs) > 1 else a_RIs[0].to(dtype)


def _ranks(a_RIs: Sequence[Tensor]) -> list[slice]:
    """Where each layer's ranks lie among those of the group."""
    return [slice(end - len(a_RI), end) for a_RI, end in zip(a_RIs, accumulate(map(len, a_RIs)), strict=True)]


def _is_plain(layer: nn.Module) -> bool:
    """Whether the layer's forward is exactly `_LoraLinears`': no DoRA or other variant, no dropout, no adapter bias."""
    if not isinstance(layer, LoraLinear):
        return False
    has_variant = bool(getattr(layer, "lora_variant", {}))
    has_dropout = any(not isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
    has_bias = any(b.bias is not None for b in layer.lora_B.values())
    return type(layer.base_layer) is nn.Linear and not (has_variant or has_dropout or has_bias)
