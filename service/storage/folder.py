"""The object store in a folder: a key is a relative path, a write appears by rename.

The temporary file lies in the same file system (`.incoming/`), or rename would copy. That folder is also what tells a
store from the bare place of a mount that has gone, where nothing lies and every object would seem deleted.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from service.storage.incoming import new_incoming_file, sweep
from service.storage.object_keys import RESERVED_SEGMENT, check_key
from service.storage.object_store import ObjectNotFound, StoredObject, StoreError

READ_BYTES = 256 * 1024


class FolderStore:
    """An `ObjectStore` over `root`, which is made for the first write, and not again when it goes away afterwards."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  # resolve() would follow the user's own symlinks
        self._incoming = self.root / RESERVED_SEGMENT
        self._is_made = False

    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        target = self._path(key)
        digest = hashlib.sha256()
        size_bytes = 0
        self._make_once()
        with new_incoming_file(self._incoming) as (file, path):
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
            file.flush()
            os.fsync(file.fileno())
            _move(path, target)
        self._sync_folders(target.parent)
        return StoredObject(key, size_bytes, digest.hexdigest())

    def read(self, key: str) -> bytes:
        with self._open(key) as file:
            return file.read()

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        chunks = self._chunks(key, start=start, end=end)
        next(chunks)
        return chunks

    def size_bytes(self, key: str) -> int:
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing(key) from error
        if not stat.S_ISREG(status.st_mode):
            raise self._missing(key)
        return status.st_size

    def list_keys(self, prefix: str) -> list[str]:
        base = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        keys = (self._key(Path(folder, name)) for folder, names in self._walk(base) for name in names)
        found = sorted(key for key in keys if key.startswith(prefix))
        if not found:
            self._check_there()
        return found

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._check_there()
            return
        for folder in path.parents:
            if folder == self.root or not _remove_empty(folder):
                return

    def uri(self, key: str) -> str:
        return str(self._path(key))

    def download_url(self, key: str, *, content_disposition: str) -> str | None:
        return None

    def check_writable(self) -> None:
        self._make_once()
        with new_incoming_file(self._incoming) as (file, _):
            file.write(b"\0")
            file.flush()

    def is_written(self) -> bool:
        """Whether it was ever written, and is not the bare place of a mount that has gone."""
        return self._incoming.is_dir()

    def check_written(self) -> None:
        """Of a store that was written before. Raises: StoreError."""
        if not self.is_written():
            raise self._gone()

    def sweep_leftovers(self) -> int:
        """Remove what writers that were killed left behind; returns how many files."""
        return sweep(self._incoming)

    def _make_once(self) -> None:
        if not self._is_made:
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._is_made = True

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _walk(self, base: Path) -> Iterator[tuple[str, list[str]]]:
        for folder, folders, names in os.walk(base, onerror=_raise_unless_gone):
            if RESERVED_SEGMENT in folders:
                folders.remove(RESERVED_SEGMENT)
            yield folder, names

    def _chunks(self, key: str, *, start: int, end: int | None) -> Iterator[bytes]:
        """Yield nothing with the object open, then its bytes: once begun, it closes the file whoever lets go of it."""
        with self._open(key) as file:
            yield b""
            size_bytes = os.fstat(file.fileno()).st_size
            end = size_bytes if end is None else min(end, size_bytes)
            file.seek(start)
            while start < end and (chunk := file.read(min(READ_BYTES, end - start))):
                start += len(chunk)
                yield chunk

    def _open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise self._missing(key) from error

    def _missing(self, key: str) -> ObjectNotFound | StoreError:
        if self.is_written():
            return ObjectNotFound(f"no object lies under the key {key!r}")
        return self._gone()

    def _check_there(self) -> None:
        """Of a store that has never been written there is nothing to go."""
        if self.root.exists() or self._is_made:
            self.check_written()

    def _gone(self) -> StoreError:
        remedy = f"mount {self.root} again; where its objects are there and only {self._incoming} is not, make that"
        return StoreError(errno.ENODEV, "the object store's folder is gone", remedy=remedy)

    def _sync_folders(self, folder: Path) -> None:
        """Make the new names durable: a file's own fsync says nothing about the folders it lies in."""
        for parent in (folder, *folder.parents):
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if parent == self.root:
                return


def _move(path: Path, target: Path) -> None:
    """Under a new folder, if need be, which a delete may take away again as long as it is empty.

    Also while `mkdir` looks at it: then it says that the folder is there, or that the one above it is not.
    """
    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        except FileNotFoundError:
            if not path.exists():
                raise
        except FileExistsError as error:
            if _is_other_than_folder(error.filename):
                raise
        else:
            return


def _raise_unless_gone(error: OSError) -> None:
    """A folder that a delete has taken away meanwhile, or that is an object, holds nothing; one that fails may."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _is_other_than_folder(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
