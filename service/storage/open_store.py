"""From a storage URL to its object store: the one place that knows which kinds there are."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.storage.folder import FolderStore
from service.storage.object_store import ObjectStore


class UnknownStorageUrl(ValueError):
    """A storage URL of a kind that this build does not speak."""


def open_store(storage_url: str) -> ObjectStore:
    """Open a folder (a path or `file://…`). Raises: UnknownStorageUrl."""
    scheme = storage_url.partition("://")[0].lower() if "://" in storage_url else "file"
    opener = OPENERS.get(scheme)
    if opener is None:
        known = ", ".join(f"{name}://" for name in OPENERS)
        raise UnknownStorageUrl(
            f"storage URL {storage_url!r}: this build speaks {known} and plain paths; give a folder"
        )
    return opener(storage_url)


def _open_folder(storage_url: str) -> ObjectStore:
    url = urlsplit(storage_url) if "://" in storage_url else None
    path = storage_url if url is None else unquote(url.path)
    if not path or "\0" in path or (url and url.netloc):
        raise UnknownStorageUrl(f"storage URL {storage_url!r} names no folder; give a path, or file:///absolute/path")
    store = FolderStore(Path(path))
    store.sweep_leftovers()
    return store


OPENERS: dict[str, Callable[[str], ObjectStore]] = {"file": _open_folder}
