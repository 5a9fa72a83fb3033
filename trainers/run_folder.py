"""The run folder, a path or `s3://bucket/prefix`: the only thing that a trainer and a service share.

A name in it is either whole or absent: local writes go through a temporary file and a rename, S3 shows an object once
it is complete.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

S3_SCHEME = "s3://"


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
        files, path = _open(self.resolve(name))
        return bool(files.get_file_info(path).type == fs.FileType.File)

    def write(self, name: str, content: bytes) -> None:
        files, path = _open(self.resolve(name))
        if isinstance(files, fs.LocalFileSystem):
            _write_whole(Path(path), content)
        else:
            with files.open_output_stream(path) as stream:
                stream.write(content)

    def names(self, prefix: str) -> list[str]:
        """Names of all whole files under the folder `prefix`, relative to the run folder, sorted."""
        files, root = _open(self.uri)
        _, path = _open(self.resolve(prefix))
        found = files.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
        whole = [info for info in found if info.type == fs.FileType.File and not info.base_name.startswith(".")]
        return sorted(info.path[len(root) :].lstrip("/") for info in whole)

    def delete(self, name: str) -> None:
        """Remove a file; a missing one is fine."""
        if self.exists(name):
            files, path = _open(self.resolve(name))
            files.delete_file(path)


def read_bytes(uri: str) -> bytes:
    """Raises: FileNotFoundError, OSError."""
    files, path = _open(uri)
    with files.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Yield a local folder with what lies under `uri`: itself, or a download that is removed again."""
    files, path = _open(uri)
    if isinstance(files, fs.LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="dpo-model-") as folder:
        fs.copy_files(path, folder, source_filesystem=files, destination_filesystem=fs.LocalFileSystem())
        yield Path(folder)


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    if uri.startswith(S3_SCHEME):
        return _s3(), uri.removeprefix(S3_SCHEME).rstrip("/")
    return fs.LocalFileSystem(), str(Path(uri).absolute())


def _s3() -> fs.FileSystem:
    """Open S3 with AWS's own credential chain; `DPO_S3_ENDPOINT_URL` names another server than Amazon's.

    Opening lazily, a small object is one request, and a failed one leaves no upload in parts behind.
    """
    endpoint = os.environ.get("DPO_S3_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint is None:
        return fs.S3FileSystem(region=region, allow_delayed_open=True)
    # AWS's client would add checksums in a way (chunked trailers) that many other servers refuse.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    scheme, _, address = endpoint.partition("://")
    return fs.S3FileSystem(
        endpoint_override=address.rstrip("/"), scheme=scheme, region=region or "us-east-1", allow_delayed_open=True
    )


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
