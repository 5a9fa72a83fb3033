"""The object store: everything the service asks of it, tried with small objects that are removed again.

A folder that was never written is left so: what is made there would be taken for the store that a mount brings.
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from service.doctor.data_folder import nearest_existing, try_writing
from service.doctor.database import has_files
from service.doctor.finding import Finding
from service.settings import Settings
from service.storage.folder import FolderStore
from service.storage.object_store import ObjectNotFound, ObjectStore, StoreError, UnknownStorageUrl
from service.storage.open_store import open_store

if TYPE_CHECKING:
    from service.storage.s3 import S3Store

PART = "store"
CONTENT = b"0123456789"
RACERS = 8
RACES = 3
DOWNLOAD_TIMEOUT_S = 20.0


class _Wrong(Exception):
    """The store answered, with something else than was asked for."""


def examine_store(settings: Settings) -> Iterator[Finding]:
    url = settings.resolved_storage_url
    try:
        store = open_store(url, s3_endpoint_url=settings.s3_endpoint_url)
        if isinstance(store, FolderStore) and not store.is_written():
            yield _examine_unwritten(store, url, settings)
            return
        store.check_writable()
    except UnknownStorageUrl as error:
        yield Finding(PART, "failed", str(error), "give a folder or s3://bucket/prefix in DPO_STORAGE_URL")
        return
    except OSError as error:
        yield _failed(url, "cannot be written", error)
        return
    yield _examine_objects(store, url)
    if not url.startswith("s3://"):
        return
    from service.storage.s3 import S3Store  # boto3 only where there is a bucket

    assert isinstance(store, S3Store)
    yield _attempt(url, "presigned downloads", lambda: _try_presigned(store))
    yield _tell_conditional_writes(store, url)


def _examine_unwritten(store: FolderStore, url: str, settings: Settings) -> Finding:
    """One that the first start will make, or the bare place of a mount that has gone. Raises: OSError."""
    has_rows = has_files(settings)
    if has_rows:
        store.check_written()
    try_writing(nearest_existing(store.root))
    if has_rows is None:
        remedy = "mend the database first: it knows whether files were stored, and so whether a mount is away"
        return Finding(PART, "note", f"{url}: holds no store", remedy)
    return Finding(PART, "ok", f"{url}: made at the first start")


def _examine_objects(store: ObjectStore, url: str) -> Finding:
    key = f"doctor-{uuid4().hex}"
    steps: dict[str, Callable[[], object]] = {
        "write": lambda: store.write(key, [CONTENT]),
        "read": lambda: _expect(store.read(key), CONTENT),
        "range": lambda: _expect(b"".join(store.stream(key, start=2, end=5)), CONTENT[2:5]),
        "list": lambda: _expect(store.list_keys(key), [key]),
        "delete": lambda: store.delete(key),
        "list what is left": lambda: _expect(store.list_keys(key), []),
    }
    done: list[str] = []
    try:
        for name, step in steps.items():
            finding = _attempt(url, name, step)
            if finding.state == "failed":
                return finding
            done.append(name)
    finally:
        with suppress(OSError):
            store.delete(key)
    return Finding(PART, "ok", f"{url}: {', '.join(done)}")


def _attempt(url: str, name: str, step: Callable[[], object]) -> Finding:
    try:
        step()
    except (OSError, ObjectNotFound, _Wrong) as error:
        return _failed(url, f"fails at: {name}", error)
    return Finding(PART, "ok", f"{url}: {name}")


def _failed(url: str, what: str, error: Exception) -> Finding:
    remedy = error.remedy if isinstance(error, StoreError) else "see what the server says, or name another store"
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Finding(PART, "failed", f"{url} {what} ({cause})", remedy)


def _expect(found: object, expected: object) -> None:
    """Raises: _Wrong."""
    if found != expected:
        raise _Wrong(f"it gave {found!r:.100}, not {expected!r:.100}")


def _try_presigned(store: "S3Store") -> None:
    """As a client does: another program, without a key. Raises: OSError; _Wrong."""
    key = f"doctor-{uuid4().hex}"
    store.write(key, [CONTENT])
    try:
        url = store.download_url(key, content_disposition="attachment")
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:  # noqa: S310  # our own store's URL
            _expect(answer.read(), CONTENT)
    except urllib.error.HTTPError as error:
        with error:
            raise _Wrong(f"HTTP {error.code}; is AWS_REGION the bucket's?") from error
    finally:
        store.delete(key)


def _tell_conditional_writes(store: "S3Store", url: str) -> Finding:
    """Worth knowing before anybody builds a lock on them; the service does not."""
    try:
        told = _describe_conditional_writes(store)
    except OSError as error:
        told = f"fail ({error.strerror})"
    return Finding(PART, "note", f"{url}: conditional writes (If-None-Match: *) {told}; the service relies on none")


def _describe_conditional_writes(store: "S3Store") -> str:
    """Raises: OSError."""
    if _winners(store, at_once=1) > 1:
        return "are ignored: a second one overwrites the first"
    most_winners = max(_winners(store, at_once=RACERS) for _ in range(RACES))
    if most_winners > 1:
        return f"are kept one after the other, but not at once: of {RACERS} writers of one key {most_winners} succeeded"
    return f"are kept: of {RACERS} writers of one key at once one succeeded"


def _winners(store: "S3Store", *, at_once: int) -> int:
    """Return how many of `RACERS` writers of one key were told that they were the first."""
    key = f"doctor-{uuid4().hex}"
    try:
        with ThreadPoolExecutor(at_once) as racers:
            return sum(racers.map(lambda _: store.write_if_absent(key, CONTENT), range(RACERS)))
    finally:
        store.delete(key)
