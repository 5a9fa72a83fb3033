"""The run folder, a path or `s3://bucket/prefix`: the only thing that a trainer and a service share.

A name in it is either whole or absent: local writes go through a temporary file and a rename, S3 shows an object once
it is complete.
"""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from trainers.file_systems import S3_SCHEME, locate, outlast


@dataclass(frozen=True, slots=True)
class RunFolder:
    uri: str

    def resolve(self, uri: str) -> str:
        """Return an absolute URI: an absolute path, an S3 URI, or a path relative to the run folder."""
        if uri.startswith(S3_SCHEME) or Path(uri).is_absolute():
            return uri
        return f"{self.uri.rstrip('/')}/{uri}"

    def read(self, name: str) -> bytes:
        return read_bytes(self.resolve(name))

    def exists(self, name: str) -> bool:
        files, path = locate(self.resolve(name))
        return outlast(lambda: bool(files.get_file_info(path).type == fs.FileType.File))

    def write(self, name: str, content: bytes) -> None:
        files, path = locate(self.resolve(name))
        if isinstance(files, fs.LocalFileSystem):
            _write_whole(Path(path), content)
        else:
            outlast(lambda: _put(files, path, content))

    def names(self, prefix: str) -> list[str]:
        """Names of all whole files under the folder `prefix`, relative to the run folder, sorted."""
        _, root = locate(self.uri)
        files, path = locate(self.resolve(prefix))
        selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
        found = outlast(lambda: files.get_file_info(selector))
        whole = [info for info in found if info.type == fs.FileType.File and not info.base_name.startswith(".")]
        return sorted(info.path[len(root) :].lstrip("/") for info in whole)

    def delete(self, name: str) -> None:
        """Remove a file; a missing one is fine."""
        if self.exists(name):
            files, path = locate(self.resolve(name))
            outlast(lambda: files.delete_file(path))

    def delete_folder(self, prefix: str) -> None:
        """Remove everything under `prefix`, as far as it is there."""
        files, path = locate(self.resolve(prefix))
        with suppress(FileNotFoundError):
            outlast(lambda: files.delete_dir(path))


def read_bytes(uri: str) -> bytes:
    """Raises: FileNotFoundError, OSError."""
    files, path = locate(uri)
    return outlast(lambda: _get(files, path))


def _get(files: fs.FileSystem, path: str) -> bytes:
    with files.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def _put(files: fs.FileSystem, path: str, content: bytes) -> None:
    with files.open_output_stream(path, compression=None) as stream:  # by default a .gz is packed once more
        stream.write(content)


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps a half-written file out of every listing by name; containers may share a pid and a folder.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
