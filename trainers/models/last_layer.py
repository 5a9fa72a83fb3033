"""The last decoder layer where it counts: a token that predicts nothing is there for its keys and values alone.

Queries, the output projection and the MLP work token by token, so leaving tokens out changes no other one.

N = packed tokens, U = tokens that predict one
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@contextmanager
def last_layer_only_at(model: PreTrainedModel, row_U: Tensor) -> Iterator[None]:
    """Leave the other tokens' states at the end undefined while the context lasts; no row comes twice."""
    with ExitStack() as stack:
        for module in _token_wise_modules(model):
            stack.enter_context(_only_at(module, row_U))
        yield


def last_layer_of(model: PreTrainedModel) -> nn.Module | None:
    layers = getattr(model.base_model, "layers", None)
    return layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None


def _token_wise_modules(model: PreTrainedModel) -> list[nn.Module]:
    """None where the layer is not built as Llama's."""
    layer = last_layer_of(model)
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    modules = [getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), mlp]
    # A mixture's experts stand elsewhere: how it routes may depend on who is there.
    is_as_llamas = all(isinstance(module, nn.Module) for module in modules) and hasattr(mlp, "down_proj")
    return [module for module in modules if isinstance(module, nn.Module)] if is_as_llamas else []


@contextmanager
def _only_at(module: nn.Module, row_U: Tensor) -> Iterator[None]:
    whole = module.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y_1UO = whole(_Gather.apply(x, row_U), *args, **kwargs)  # type: ignore[no-untyped-call]
        spread: Tensor = _Scatter.apply(y_1UO, row_U, x.shape[1])  # type: ignore[no-untyped-call]
        return spread

    had_own = "forward" in vars(module)
    module.forward = forward
    try:
        yield
    finally:
        if had_own:
            module.forward = whole
        else:
            del module.forward


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_1NI: Tensor, row_U: Tensor) -> Tensor:
        ctx.row_U, ctx.shape = row_U, x_1NI.shape
        return x_1NI.index_select(1, row_U)

    @staticmethod
    def backward(ctx: Any, dy_1UI: Tensor) -> tuple[Tensor, None]:
        return dy_1UI.new_zeros(ctx.shape).index_copy_(1, ctx.row_U, dy_1UI), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_1UO: Tensor, row_U: Tensor, tokens: int) -> Tensor:
        ctx.row_U = row_U
        return y_1UO.new_zeros(1, tokens, y_1UO.shape[-1]).index_copy_(1, row_U, y_1UO)

    @staticmethod
    def backward(ctx: Any, dx_1NO: Tensor) -> tuple[Tensor, None, None]:
        return dx_1NO.index_select(1, ctx.row_U), None, None
