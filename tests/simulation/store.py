"""The store in memory: what lies there, and the door by which one dispatcher reaches it, faults and all."""

import errno
import hashlib
from collections.abc import Iterable, Iterator

from service.storage.object_store import ObjectNotFound, StoredObject, StoreError

SCHEME = "sim://"


class StoreAway(StoreError):
    """An outage of ours, not of the service."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the simulated store is away", remedy="wait")


class MemoryStore:
    """An `ObjectStore` that fails only while `is_away`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: set[str] = set()
        """By trainers, whatever has been deleted since."""
        self.is_away = False

    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        content = b"".join(chunks)
        self._answer()
        self.objects[key] = content
        return StoredObject(key, len(content), hashlib.sha256(content).hexdigest())

    def read(self, key: str) -> bytes:
        self._answer()
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectNotFound(f"no object lies under the key {key!r}") from None

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return iter([self.read(key)[start:end]])

    def list_keys(self, prefix: str) -> list[str]:
        self._answer()
        return sorted(key for key in self.objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._answer()
        self.objects.pop(key, None)

    def uri(self, key: str) -> str:
        return f"{SCHEME}{key}"

    def _answer(self) -> None:
        if self.is_away:
            raise StoreAway


def key_of(uri: str) -> str:
    """What a trainer makes of a URI that it was told."""
    assert uri.startswith(SCHEME), uri
    return uri.removeprefix(SCHEME)
