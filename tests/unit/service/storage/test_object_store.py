"""What every object store must do; each implementation is one parameter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.storage.folder import FolderStore
from service.storage.object_keys import InvalidObjectKey
from service.storage.object_store import ObjectNotFound, ObjectStore
from service.storage.observed import ObservedStore
from service.storage.open_store import open_store
from tests.buckets import Bucket

IMPLEMENTATIONS = ("folder", "observed folder", "s3")

BAD_KEYS = {
    "empty": "",
    "absolute": "/etc/passwd",
    "parent": "files/../../secret",
    "only parent": "..",
    "dot": "files/./a",
    "double slash": "files//a",
    "trailing slash": "files/",
    "NUL": "files/a\0b",
    "newline": "files/a\nb",
    "backslash": "files\\a",
    "surrogate": "files/\ud800",
    "long segment": "a" * 256,
    "long key": "/".join(["a" * 200] * 6),
    "the store's own": ".incoming/a",
}


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    if request.param == "observed folder":
        return ObservedStore(FolderStore(tmp_path / "store"), pytest.fail)
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_store(bucket.url, s3_endpoint_url=bucket.server.endpoint_url)


def test_bytes_come_back_as_they_were_written(store: ObjectStore) -> None:
    stored = store.write("files/a", [b"hello ", b"", b"world"])

    assert (stored.key, stored.size_bytes) == ("files/a", 11)
    assert stored.sha256 == "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    assert store.read("files/a") == b"hello world"
    assert b"".join(store.stream("files/a")) == b"hello world"
    assert store.size_bytes("files/a") == 11


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.write("empty", [])

    assert (store.read("empty"), store.size_bytes("empty"), list(store.stream("empty"))) == (b"", 0, [])


def test_a_second_write_replaces_the_first(store: ObjectStore) -> None:
    store.write("a", [b"first, and longer"])
    store.write("a", [b"second"])

    assert store.read("a") == b"second"


@pytest.fixture
def store_of_digits(store: ObjectStore) -> ObjectStore:
    store.write("a", [b"0123456789"])
    return store


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 12), end=st.none() | st.integers(0, 12))
def test_a_range_is_a_slice(store_of_digits: ObjectStore, start: int, end: int | None) -> None:
    assert b"".join(store_of_digits.stream("a", start=start, end=end)) == b"0123456789"[start:end]


def test_a_large_object_streams_in_pieces(store: ObjectStore) -> None:
    block = bytes(range(256)) * 4096
    store.write("large", [block, block])

    chunks = list(store.stream("large", start=1))

    assert len(chunks) > 1
    assert b"".join(chunks) == (block + block)[1:]


def test_a_write_whose_source_fails_leaves_the_old_object(store: ObjectStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError("the client went away")

    store.write("old", [b"whole"])
    for key in ("old", "new"):
        with pytest.raises(ConnectionResetError):
            store.write(key, broken())

    assert store.read("old") == b"whole"
    assert store.list_keys("") == ["old"]


def test_an_object_is_not_seen_before_it_is_whole(store: ObjectStore) -> None:
    seen: list[list[str]] = []

    def watching() -> Iterator[bytes]:
        yield b"half"
        seen.append(store.list_keys(""))
        yield b"whole"

    store.write("a", watching())

    assert seen == [[]]
    assert store.list_keys("") == ["a"]


@pytest.mark.parametrize("key", ["missing", "folder", "file/below"])
def test_a_missing_object_is_not_found(store: ObjectStore, key: str) -> None:
    store.write("folder/a", [b"x"])
    store.write("file", [b"x"])

    for act in (store.read, store.size_bytes, store.stream):
        with pytest.raises(ObjectNotFound, match=key):
            act(key)


def test_a_deleted_object_is_gone_and_may_be_deleted_again(store: ObjectStore) -> None:
    store.write("a/b", [b"x"])

    for key in ("a/b", "a/b", "a", "never/there", "a/b/c"):
        store.delete(key)

    assert store.list_keys("") == []
    with pytest.raises(ObjectNotFound):
        store.read("a/b")


def test_keys_are_listed_by_prefix_in_order(store: ObjectStore) -> None:
    for key in ("runs/1/b", "runs/1/a", "runs/10/a", "runs/2", "other"):
        store.write(key, [b"x"])

    assert store.list_keys("runs/1/") == ["runs/1/a", "runs/1/b"]
    assert store.list_keys("runs/1") == ["runs/1/a", "runs/1/b", "runs/10/a"]
    assert store.list_keys("ru") == ["runs/1/a", "runs/1/b", "runs/10/a", "runs/2"]
    assert store.list_keys("") == ["other", "runs/1/a", "runs/1/b", "runs/10/a", "runs/2"]
    assert store.list_keys("nothing/here") == []


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_that_could_leave_the_store_is_refused(store: ObjectStore, key: str) -> None:
    for act in (store.read, store.size_bytes, store.stream, store.delete, store.uri):
        with pytest.raises(InvalidObjectKey):
            act(key)
    with pytest.raises(InvalidObjectKey):
        store.write(key, [b"x"])


def test_a_store_can_be_probed(store: ObjectStore) -> None:
    store.check_writable()

    assert store.list_keys("") == []
