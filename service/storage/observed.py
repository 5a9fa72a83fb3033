"""An object store whose failures are counted. That an object is not there is an answer, and no failure."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from service.storage.object_store import ObjectStore, StoredObject

OPERATIONS = ("write", "read", "stream", "size", "list", "delete", "presign", "check", "sweep")


class ObservedStore:
    """An `ObjectStore`; `count_error` is told the operation, one of `OPERATIONS`."""

    def __init__(self, store: ObjectStore, count_error: Callable[[str], None]) -> None:
        self._store = store
        self._count_error = count_error

    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        source = _Source(chunks)
        with self._counting("write", caused_by=source):
            return self._store.write(key, source)

    def read(self, key: str) -> bytes:
        with self._counting("read"):
            return self._store.read(key)

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self._counting("stream"):
            chunks = self._store.stream(key, start=start, end=end)
        return self._counted(chunks)

    def size_bytes(self, key: str) -> int:
        with self._counting("size"):
            return self._store.size_bytes(key)

    def list_keys(self, prefix: str) -> list[str]:
        with self._counting("list"):
            return self._store.list_keys(prefix)

    def delete(self, key: str) -> None:
        with self._counting("delete"):
            self._store.delete(key)

    def uri(self, key: str) -> str:
        return self._store.uri(key)

    def download_url(self, key: str, *, content_disposition: str) -> str | None:
        with self._counting("presign"):
            return self._store.download_url(key, content_disposition=content_disposition)

    def check_writable(self) -> None:
        with self._counting("check"):
            self._store.check_writable()

    def sweep_leftovers(self) -> int:
        with self._counting("sweep"):
            return self._store.sweep_leftovers()

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        with self._counting("stream"):
            yield from chunks

    @contextmanager
    def _counting(self, operation: str, *, caused_by: "_Source | None" = None) -> Iterator[None]:
        try:
            yield
        except OSError:
            if caused_by is None or not caused_by.has_failed:
                self._count_error(operation)
            raise


class _Source:
    """What is written. Its own failure, a client that went away, is none of the store's."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.has_failed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except OSError:
            self.has_failed = True
            raise
