"""The data folder: there or to be made, writable, with room."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from service.doctor.finding import Finding
from service.settings import Settings

PART = "data folder"
LITTLE_ROOM_BYTES = 1024**3


def examine_data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.resolved_data_dir
    existing = nearest_existing(folder)
    try:
        try_writing(existing)
    except OSError as error:
        remedy = f"make {existing} a folder that this user may write, or name another in DPO_DATA_DIR"
        yield Finding(PART, "failed", f"{folder} cannot be written ({error.strerror})", remedy)
        return
    yield _tell_room(folder, existing)


def nearest_existing(folder: Path) -> Path:
    """Where it lies, or would be made."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def try_writing(existing: Path) -> None:
    """Leaves nothing. Raises: OSError."""
    with TemporaryFile(dir=existing) as file:
        file.write(b"\0")
        file.flush()


def _tell_room(folder: Path, existing: Path) -> Finding:
    free_bytes = shutil.disk_usage(existing).free
    is_made = "" if existing == folder else ", made at the first start"
    told = f"{folder}{is_made}: writable, {free_bytes / 1024**3:,.1f} GiB free"
    if free_bytes < LITTLE_ROOM_BYTES:
        return Finding(PART, "failed", told, "make room, or name another folder in DPO_DATA_DIR")
    return Finding(PART, "ok", told)
