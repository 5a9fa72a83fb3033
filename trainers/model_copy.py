"""A model of the registry as a local folder: its own, or the machine's one copy from the bucket, shared by its workers.

Each user holds the copy's lock (flock) shared, the one that downloads holds it alone, and the last one to leave removes
the copy. The kernel drops the lock of a killed worker; what it leaves is used, and then removed, by the next, unless
another model lies there by then: a copy is named after what was listed when it was made.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pyarrow import fs

from trainers.errors import UnusableModel
from trainers.file_systems import S3_SCHEME, locate, outlast


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Yield a local folder with what lies under `uri`, while the block runs. Raises: UnusableModel; OSError."""
    files, path = locate(uri)
    if isinstance(files, fs.LocalFileSystem):
        if not Path(path).is_dir():
            raise _misplaced(path, found="a file, and no folder," if Path(path).exists() else "nothing")
        yield Path(path)
        return
    place = _own_folder() / _digest(f"{os.environ.get('DPO_S3_ENDPOINT_URL')} {uri}")
    copy = place.with_name(f"{place.name}-{_digest(_listing(files, path))}")
    with copy.with_suffix(".lock").open("a") as lock:
        _take(lock, copy, files, path)
        try:
            _remove_former(place, copy)
            yield copy
        finally:
            _remove_if_last(lock, copy)


def _own_folder() -> Path:
    """Return a folder that no other user of this machine can write: what lies in it is loaded."""
    folder = Path(tempfile.gettempdir()) / f"dpo-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; remove it, or set TMPDIR")
    return folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _listing(files: fs.FileSystem, path: str) -> str:
    """Return what lies there: names, sizes and times. Raises: UnusableModel; OSError."""
    selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
    found = outlast(lambda: files.get_file_info(selector))
    whole = sorted((info.path, info.size, info.mtime_ns) for info in found if info.type == fs.FileType.File)
    if not whole:
        raise _misplaced(f"{S3_SCHEME}{path}", found="nothing")
    return repr(whole)


def _misplaced(place: str, *, found: str) -> UnusableModel:
    # transformers would take a path that is not there for a name on Hugging Face's hub, and tell the rules of names.
    return UnusableModel(
        f"{found} lies at {place}; mend its uri in the registry (models file): a model's folder, or s3://bucket/prefix"
    )


def _take(lock: IO[str], copy: Path, files: fs.FileSystem, path: str) -> None:
    """Return with the lock shared and the copy whole. Changing a lock lets others in between, hence the loop."""
    while True:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if copy.is_dir():
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.is_dir():
            _download(files, path, copy)


def _download(files: fs.FileSystem, path: str, copy: Path) -> None:
    half = _clear_half(copy)
    half.mkdir()
    here = fs.LocalFileSystem()
    outlast(lambda: fs.copy_files(path, str(half), source_filesystem=files, destination_filesystem=here))
    half.rename(copy)


def _clear_half(copy: Path) -> Path:
    """Return where a copy lies while it comes and goes; what a killed worker left there is removed."""
    half = copy.with_suffix(".part")
    with suppress(FileNotFoundError):
        shutil.rmtree(half)
    return half


def _remove_former(place: Path, copy: Path) -> None:
    """Remove what killed workers left of a model that lay there before."""
    for left in place.parent.glob(f"{place.name}-*"):
        former = left.with_suffix("")
        if left.is_dir() and former != copy:
            with former.with_suffix(".lock").open("a") as lock:
                _remove_if_last(lock, former)


def _remove_if_last(lock: IO[str], copy: Path) -> None:
    """A copy under its name is whole: it is renamed before it is removed, in case this process is killed meanwhile."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    half = _clear_half(copy)
    with suppress(FileNotFoundError):  # another worker has removed it, or half of it was left
        copy.rename(half)
    _clear_half(copy)
