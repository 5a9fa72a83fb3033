"""The data folder: made when missing, writable, and held by one service at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.serve.start_errors import StartError

LOCK_NAME = "service.lock"


@contextmanager
def hold_data_folder(data_dir: Path) -> Iterator[None]:
    """Hold the folder until the block ends; the kernel lets go of it for a killed service. Raises: StartError."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise StartError(
            f"The data folder {data_dir} cannot be written ({cause}); give another with --data-dir or DPO_DATA_DIR."
        ) from error
    try:
        _lock(descriptor, data_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise StartError(
            f"The data folder {data_dir} is in use by another dpo-service (process {holder}); "
            "stop that one, or give this one a folder of its own with --data-dir or DPO_DATA_DIR."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
