"""The object store as the service sees it: bytes under keys, whole or not at all.

Keys are those of `schemas.run_layout`. A write is visible only once it is complete. Where the store itself fails, every
call raises an OSError.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


class ObjectNotFound(LookupError):
    """No object lies under this key."""


class UnknownStorageUrl(ValueError):
    """A storage URL of a kind that this build does not speak."""


class StoreError(OSError):
    """The store did not do its part. `strerror` is for anyone; `remedy` is for who runs it, and may name servers."""

    def __init__(self, number: int, message: str, *, remedy: str) -> None:
        super().__init__(number, message)
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.strerror}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    size_bytes: int
    sha256: str


class ObjectStore(Protocol):
    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        """Store the chunks under `key`, replacing what was there; on any error nothing is left behind."""

    def read(self, key: str) -> bytes:
        """Return the whole object. Raises: ObjectNotFound."""

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield bytes `start` (inclusive) to `end` (exclusive). Raises: ObjectNotFound, before the first chunk."""

    def size_bytes(self, key: str) -> int:
        """Raises: ObjectNotFound."""

    def list_keys(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object; a missing one is fine."""

    def uri(self, key: str) -> str:
        """Where a trainer finds the key: an absolute path or `s3://bucket/prefix/key`."""

    def download_url(self, key: str, *, content_disposition: str) -> str | None:
        """A presigned URL, or None where the service must stream the bytes itself."""

    def check_writable(self) -> None:
        """Raises: OSError when the store cannot be written."""

    def sweep_leftovers(self) -> int:
        """Remove what writers that were killed left behind; returns how many. Raises: OSError."""
