"""A store's failures are counted by operation and go on to whoever called; its answers are not counted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.storage.folder import FolderStore
from service.storage.object_store import ObjectNotFound, ObjectStore
from service.storage.observed import OPERATIONS, ObservedStore

CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "write": lambda store: store.write("a", [b""]),
    "read": lambda store: store.read("a"),
    "stream": lambda store: store.stream("a"),
    "size": lambda store: store.size_bytes("a"),
    "list": lambda store: store.list_keys(""),
    "delete": lambda store: store.delete("a"),
    "presign": lambda store: store.download_url("a", content_disposition=""),
    "check": lambda store: store.check_writable(),
    "sweep": lambda store: store.sweep_leftovers(),
}


class BrokenStore:
    def __getattr__(self, name: str) -> object:
        def fail(*_: object, **__: object) -> object:
            raise OSError(name)

        return fail


class CutOffStore(BrokenStore):
    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield b"half"
        raise OSError


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_failure_is_counted_under_its_operation(operation: str) -> None:
    counted: list[str] = []
    with pytest.raises(OSError, match=r"\w"):
        CALLS[operation](ObservedStore(BrokenStore(), counted.append))  # type: ignore[arg-type]
    assert counted == [operation]


def test_a_download_that_is_cut_off_is_counted_once() -> None:
    counted: list[str] = []
    chunks = ObservedStore(CutOffStore(), counted.append).stream("a")  # type: ignore[arg-type]
    assert next(chunks) == b"half"
    with pytest.raises(OSError):  # noqa: PT011  # it says nothing
        next(chunks)
    assert counted == ["stream"]


def test_that_an_object_is_not_there_is_an_answer(tmp_path: Path) -> None:
    counted: list[str] = []
    store = ObservedStore(FolderStore(tmp_path), counted.append)
    store.check_writable()
    with pytest.raises(ObjectNotFound):
        store.read("a")
    assert counted == []
