"""The sha256 of a base model's weights, for the reference cache's key and for the passport: hashed once a run, on
threads beside the loading."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from schemas.run_record import StoredFile
from trainers.models.causal_lm import weight_files

FILES_AT_ONCE = 4
"""About 1 GB/s each: a large model lies in many files."""
READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class BaseWeights:
    files: tuple[Future[StoredFile], ...]

    def hashed(self) -> tuple[StoredFile, ...]:
        """Wait until every file is hashed."""
        return tuple(file.result() for file in self.files)


@contextmanager
def hashing_weights(folder: Path) -> Iterator[BaseWeights]:
    """Hash while the context lasts. Raises: OSError, from `hashed`."""
    left = Event()
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="hash-weights") as pool:
        try:
            yield BaseWeights(tuple(pool.submit(_hash_file, path, left) for path in weight_files(folder)))
        finally:
            left.set()


def _hash_file(path: Path, left: Event) -> StoredFile:
    """Hash it, unless the run has ended meanwhile: one that fails early waits for nothing."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as stream:
        while not left.is_set() and (part := stream.read(READ_BYTES)):
            digest.update(part)
            size += len(part)
    return StoredFile(path=path.name, sha256=digest.hexdigest(), bytes=size)
