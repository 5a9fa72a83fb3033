"""Checkpoints in the run folder: files first, then a manifest with their hashes, which makes them a checkpoint.

What is half-written, or has a flipped byte, is passed over for the next older one.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from schemas.run_layout import CHECKPOINTS, MANIFEST, checkpoint_prefix
from schemas.run_record import CheckpointManifest, StoredFile
from trainers.run_folder import RunFolder

MANIFEST_NAME = re.compile(rf"step-(\d+)/{re.escape(MANIFEST)}")
RECOVERY_CHECKPOINTS_KEPT = 2
LONGEST_WITHOUT_S = 300.0
"""What a lost machine costs is bounded in minutes, too, however long a step takes."""


class CheckpointTimer:
    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._newest_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the newest checkpoint is too old. Each worker has its own answer; the one that writes acts on it."""
        return time.monotonic() - self._newest_at > LONGEST_WITHOUT_S


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    folder: RunFolder
    files: Mapping[str, bytes]
    """By path, relative to the checkpoint."""


def write_checkpoint(
    folder: RunFolder,
    step: int,
    files: Mapping[str, bytes],
    *,
    before_commit: Callable[[], None],
    under: str = CHECKPOINTS,
) -> None:
    """Write the files, let the caller make known what the checkpoint stands on, then commit by the manifest."""
    prefix = checkpoint_prefix(step, under=under)
    for path, content in files.items():
        folder.write(f"{prefix}/{path}", content)
    before_commit()
    manifest = CheckpointManifest(step=step, files=tuple(stored_file(path, content) for path, content in files.items()))
    folder.write(f"{prefix}/{MANIFEST}", manifest.model_dump_json().encode())


def newest_whole(folders: Iterable[RunFolder], *, under: str = CHECKPOINTS) -> Checkpoint | None:
    """Return the newest whole checkpoint of the first folder that has one."""
    for folder in folders:
        for step in reversed(_steps(folder, under)):
            checkpoint = _read_whole(folder, step, under)
            if checkpoint is not None:
                return checkpoint
    return None


def prune(folder: RunFolder, *, is_kept: Callable[[int], bool], under: str = CHECKPOINTS) -> None:
    """Remove recovery checkpoints but the newest two; those that `is_kept` names stay."""
    recovery = [step for step in _steps(folder, under) if not is_kept(step)]
    for step in recovery[:-RECOVERY_CHECKPOINTS_KEPT]:
        prefix = checkpoint_prefix(step, under=under)
        folder.delete(f"{prefix}/{MANIFEST}")  # first: a half-removed checkpoint is none
        folder.delete_folder(prefix)


def stored_file(path: str, content: bytes) -> StoredFile:
    return StoredFile(path=path, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _steps(folder: RunFolder, under: str) -> list[int]:
    matches = [MANIFEST_NAME.fullmatch(name.removeprefix(f"{under}/")) for name in folder.names(under)]
    return sorted(int(match[1]) for match in matches if match)


def _read_whole(folder: RunFolder, step: int, under: str) -> Checkpoint | None:
    prefix = checkpoint_prefix(step, under=under)
    try:
        manifest = CheckpointManifest.model_validate_json(folder.read(f"{prefix}/{MANIFEST}"))
        files = {file.path: folder.read(f"{prefix}/{file.path}") for file in manifest.files}
    except (ValidationError, FileNotFoundError):
        return None
    if any(stored_file(file.path, files[file.path]) != file for file in manifest.files):
        return None
    return Checkpoint(step, folder, files)
