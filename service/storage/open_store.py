"""From a storage URL to its object store: the one place that knows which kinds there are."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.storage.folder import FolderStore
from service.storage.object_store import ObjectStore, UnknownStorageUrl

MISTYPED = re.compile(r"(s3|file):(?!//)", re.IGNORECASE)
"""Else a folder of that name would be made, and used."""


def open_store(storage_url: str, *, s3_endpoint_url: str | None = None) -> ObjectStore:
    """Open a folder (a path or `file://…`) or a bucket (`s3://bucket/prefix`). Raises: UnknownStorageUrl; OSError."""
    scheme = storage_url.partition("://")[0].lower() if "://" in storage_url else "file"
    if MISTYPED.match(storage_url):
        raise UnknownStorageUrl(f"storage URL {storage_url!r} lacks a slash; give s3://bucket/prefix, or a plain path")
    opener = OPENERS.get(scheme)
    if opener is None:
        known = ", ".join(f"{name}://" for name in OPENERS)
        raise UnknownStorageUrl(f"storage URL {storage_url!r}: this build speaks {known} and plain paths")
    return opener(storage_url, s3_endpoint_url)


def _open_folder(storage_url: str, _s3_endpoint_url: str | None) -> ObjectStore:
    url = urlsplit(storage_url) if "://" in storage_url else None
    path = storage_url if url is None else unquote(url.path)
    if not path or "\0" in path or (url and url.netloc):
        raise UnknownStorageUrl(f"storage URL {storage_url!r} names no folder; give a path, or file:///absolute/path")
    return FolderStore(Path(path))


def _open_bucket(storage_url: str, s3_endpoint_url: str | None) -> ObjectStore:
    from service.storage.s3 import S3Store  # boto3 costs a third of a second: only where there is a bucket

    return S3Store(storage_url, endpoint_url=s3_endpoint_url)


OPENERS: dict[str, Callable[[str, str | None], ObjectStore]] = {"file": _open_folder, "s3": _open_bucket}
