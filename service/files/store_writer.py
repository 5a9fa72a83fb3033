"""Feed a blocking `ObjectStore.write` from async code: one thread an upload, a short queue between them.

The write is only completed by `commit`; a block left without it leaves nothing in the store.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from service.files.upload_errors import UploadNotStored
from service.storage.object_store import ObjectStore, StoredObject

QUEUED_BLOCKS = 4
BLOCK_BYTES = 1024 * 1024


class _End(Enum):
    COMMIT = "commit"
    ABANDON = "abandon"


class _Abandoned(Exception):
    """Raised into `ObjectStore.write`, which then leaves nothing behind."""


class StoreWriter:
    """`async with StoreWriter(store, key) as writer: await writer.send(…); await writer.commit()`."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(QUEUED_BLOCKS)
        self._blocks: SimpleQueue[bytes | _End] = SimpleQueue()
        self._gathered = bytearray()
        # A thread of its own: a slow client's upload must not hold one of a shared pool.
        executor = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._writing: Future[StoredObject] = executor.submit(store.write, key, self._take_blocks())
        self._writing.add_done_callback(lambda _: self._make_room())
        executor.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._writing.done():
            return
        self._blocks.put(_End.ABANDON)
        with suppress(_Abandoned, OSError):  # an OSError was told by `send` or `commit` already
            await asyncio.wrap_future(self._writing)

    async def send(self, data: bytes) -> None:
        """Hand bytes over, waiting while the store is behind. Raises: UploadNotStored."""
        self._gathered += data
        if len(self._gathered) >= BLOCK_BYTES:
            await self._send_gathered()

    async def commit(self) -> StoredObject:
        """Complete the write. Raises: UploadNotStored."""
        if self._gathered:
            await self._send_gathered()
        self._blocks.put(_End.COMMIT)
        try:
            return await asyncio.wrap_future(self._writing)
        except asyncio.CancelledError:
            self._writing.add_done_callback(lambda _: self._store.delete(self._key))
            raise
        except OSError as error:
            raise _not_stored(error) from error

    async def _send_gathered(self) -> None:
        await self._room.acquire()
        if self._writing.done():
            self._room.release()
            self._raise_failure()
        self._blocks.put(bytes(self._gathered))
        self._gathered.clear()

    def _raise_failure(self) -> None:
        try:
            self._writing.result()
        except OSError as error:
            raise _not_stored(error) from error

    def _take_blocks(self) -> Iterator[bytes]:
        while True:
            match self._blocks.get():
                case _End.COMMIT:
                    return
                case _End.ABANDON:
                    raise _Abandoned
                case block:
                    yield block
                    self._make_room()

    def _make_room(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._room.release)


def _not_stored(error: OSError) -> UploadNotStored:
    cause = error.strerror or type(error).__name__
    return UploadNotStored(f"The file could not be stored ({cause}); try again later, or tell the operator.")
