"""What a base model's weights take, and a word about it where there is no room for them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from schemas.run_spec import RunSpec
from trainers.errors import MORE_ROOM, ModelTooLarge
from trainers.models.causal_lm import DTYPES, weight_files
from trainers.pass_memory import is_out_of_memory


@contextmanager
def too_large_is_told(folder: Path, spec: RunSpec, *, device: torch.device, free_bytes: int) -> Iterator[None]:
    """Load and place the base while the context lasts; `free_bytes` were free before. Raises: ModelTooLarge."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        weights = _count_weights(folder)
        size_bytes = weights * DTYPES[spec.precision].itemsize
        in_four_bits = "" if spec.quantization is None else f", less in {spec.quantization}"
        raise ModelTooLarge(
            f"out of memory while the base model was loaded: its {weights / 1e9:,.2f} billion weights take "
            f"{size_bytes / 1e9:,.2f} GB in {spec.precision}{in_four_bits}, and of {device.type} memory "
            f"{free_bytes / 1e9:,.2f} GB were free; {MORE_ROOM}"
        ) from error


def _count_weights(folder: Path) -> int:
    """Count by the files' headers."""
    count = 0
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  # no mapping
    return count
