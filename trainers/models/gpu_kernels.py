"""Liger's Triton kernels for what lies between a GPU's matrix products: norms, rotary embedding, gated activation.

transformers computes each as a chain of small kernels that a GPU spends waiting for memory (arXiv:2410.10989). They are
optional: a model that Liger does not know, or a machine without it, keeps transformers' own.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel

DISTRIBUTION = "liger-kernel"
REPLACED = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "geglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,  # the head is ours: completion_head.py
}


@dataclass(frozen=True, slots=True)
class GpuKernels:
    name: str | None
    """With its version: numbers differ in the last digits with and without it."""
    why_not: str | None


def apply_gpu_kernels(model: PreTrainedModel, device: torch.device) -> GpuKernels:
    """Patch the model, before it gets its adapter. On a CPU there is nothing to do."""
    if device.type != "cuda":
        return GpuKernels(None, None)
    try:
        name = f"{DISTRIBUTION} {version(DISTRIBUTION)}"
    except PackageNotFoundError:
        return GpuKernels(None, f"{DISTRIBUTION} is not installed; install dpo-service[gpu] where trainers run")
    try:
        _try_one(device)
    # Triton builds its launcher by a C compiler, and says in many ways that there is none.
    except (RuntimeError, OSError, ImportError) as reason:
        return GpuKernels(None, f"Triton cannot build them ({reason}); install a C compiler where trainers run")
    apply_liger_kernel(model, REPLACED)  # type: ignore[no-untyped-call]
    return GpuKernels(name, None)


def _try_one(device: torch.device) -> None:
    from liger_kernel.ops import LigerSiLUMulFunction

    LigerSiLUMulFunction.apply(torch.ones(1, 32, device=device), torch.ones(1, 32, device=device))
