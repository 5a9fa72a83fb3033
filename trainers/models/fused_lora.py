"""LoRA layers without their temporaries: base and adapter products accumulate into one output.

PEFT's layer allocates and adds a full activation for the adapter's product, its scaling and its sum, forward and
backward; on a small model those passes over memory cost as much as the products. Here they are `addmm_` into the base's
own result. Only plain LoRA on a frozen `nn.Linear` without dropout is fused; every other layer keeps PEFT's forward.

N = tokens, I = inputs, O = outputs, R = rank
"""

from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn


def fuse_lora_layers(model: nn.Module) -> int:
    """Replace the forward of every LoRA layer that can be fused; return how many were."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLinear) and _is_plain(layer)]
    for layer in layers:
        layer.forward = _FusedForward(layer)  # type: ignore[method-assign]
    return len(layers)


class _FusedForward:
    """The layer's new forward. PEFT's own still serves a layer without exactly one active adapter."""

    def __init__(self, layer: LoraLinear) -> None:
        self._layer = layer
        self._plain_forward = layer.forward

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layer
        if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
            return self._plain_forward(x, *args, **kwargs)
        name = layer.active_adapters[0]
        x_NI = x.reshape(-1, x.shape[-1])
        y_NO = _LoraLinear.apply(  # type: ignore[no-untyped-call]
            x_NI,
            layer.base_layer.weight,
            layer.base_layer.bias,
            layer.lora_A[name].weight,
            layer.lora_B[name].weight,
            layer.scaling[name],
        )
        return cast(Tensor, y_NO).view(*x.shape[:-1], -1)


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with W and b frozen."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scaling: float
    ) -> Tensor:
        a_cast_RI, b_cast_OR = a_RI.to(x_NI.dtype), b_OR.to(x_NI.dtype)
        y_NO = nn.functional.linear(x_NI, weight_OI, bias_O)
        down_NR = x_NI @ a_cast_RI.T
        y_NO.addmm_(down_NR, b_cast_OR.T, alpha=scaling)
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, down_NR)
        ctx.scaling = scaling
        return y_NO

    @staticmethod
    def backward(ctx: Any, dy_NO: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        x_NI, weight_OI, a_RI, b_OR, down_NR = ctx.saved_tensors
        ddown_NR = (dy_NO @ b_OR.to(dy_NO.dtype)).mul_(ctx.scaling)
        dx_NI = None
        if ctx.needs_input_grad[0]:
            dx_NI = dy_NO @ weight_OI
            dx_NI.addmm_(ddown_NR, a_RI.to(dy_NO.dtype))
        da_RI = (ddown_NR.T @ x_NI).to(a_RI.dtype) if ctx.needs_input_grad[3] else None
        db_OR = (dy_NO.T @ down_NR).mul_(ctx.scaling).to(b_OR.dtype) if ctx.needs_input_grad[4] else None
        return dx_NI, None, None, da_RI, db_OR, None


def _is_plain(layer: LoraLinear) -> bool:
    """Whether the layer's forward is exactly `_LoraLinear`'s: no DoRA or other variant, no dropout, no adapter bias."""
    has_variant = bool(getattr(layer, "lora_variant", {}))
    has_dropout = any(not isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
    has_bias = any(b.bias is not None for b in layer.lora_B.values())
    return type(layer.base_layer) is nn.Linear and not (has_variant or has_dropout or has_bias)
