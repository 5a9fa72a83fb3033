"""Numbers of the host as tensors of the device, without waiting for what the device is at."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(numbers: Sequence[Any] | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy numbers, nested or not, to the device; an empty list is one of integers."""
    if dtype is None and len(numbers) == 0:
        dtype = torch.int64
    on_host = torch.as_tensor(numbers, dtype=dtype)
    if device.type != "cuda":
        return on_host
    return on_host.pin_memory().to(device, non_blocking=True)
