"""How much memory a worker may still take on its device."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")
LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""A container's limit, use and statistics, in cgroups' second and first version."""
CACHED = ("inactive_file", "total_inactive_file")


def free_bytes(device: torch.device) -> int:
    """Return what is free now; on a host the workers of this node share it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    on_host = int(psutil.virtual_memory().available)
    return min([on_host, *_left_in_container()]) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _left_in_container() -> Iterator[int]:
    for limit_file, usage_file, statistics in LIMITS:
        limit, usage = _read_number(CGROUP / limit_file), _read_number(CGROUP / usage_file)
        if limit is not None and usage is not None:
            yield max(0, limit - usage + _cached_bytes(CGROUP / statistics))


def _cached_bytes(statistics: Path) -> int:
    """Of files read and not in use: counted as the container's, given up when somebody wants the room."""
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    return max(
        [int(number) for name, _, number in (line.partition(" ") for line in lines) if name in CACHED], default=0
    )


def _read_number(file: Path) -> int | None:
    """None where the file is absent or says "max"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
