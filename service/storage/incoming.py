"""Files that are being written: each is locked by its writer, so that a dead writer's file can be told and swept.

The kernel drops the lock (flock) with the process, whatever killed it; ages and process ids would both guess.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

SUFFIX = ".part"


@contextmanager
def new_incoming_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield an empty locked file; on leaving, whatever still lies under its name is removed."""
    file, path = _create_locked(folder)
    try:
        with file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove the files that no living process writes; returns how many."""
    removed = 0
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
        except (BlockingIOError, FileNotFoundError):
            continue  # its writer lives, or has just finished
    return removed


def _create_locked(folder: Path) -> tuple[BinaryIO, Path]:
    while True:
        path = folder / f"{uuid4().hex}{SUFFIX}"
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink > 0:
            return file, path
        file.close()  # a sweep took it between open and lock
