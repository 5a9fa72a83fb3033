"""What is a bucket's alone: parts, presigned URLs, keys, outages, transfers that are cut off."""

import errno
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest

from service.storage import s3
from service.storage.object_store import ObjectNotFound, StoreError
from service.storage.s3 import PART_BYTES, S3Store
from tests.buckets import Bucket
from tests.faulty_network import Relay, relayed

BLOCK = bytes(range(256)) * 4096
LARGE = 20 * len(BLOCK)


@pytest.fixture
def store(bucket: Bucket) -> S3Store:
    return S3Store(bucket.url, endpoint_url=bucket.server.endpoint_url)


@pytest.fixture
def relay(bucket: Bucket) -> Iterator[Relay]:
    with relayed(bucket.server.endpoint_url) as relay:
        yield relay


@pytest.fixture
def far_store(bucket: Bucket, relay: Relay) -> S3Store:
    return S3Store(bucket.url, endpoint_url=relay.url)


def test_a_large_object_goes_up_in_parts_and_comes_back(store: S3Store, bucket: Bucket) -> None:
    stored = store.write("large", [BLOCK] * 20)

    assert (stored.size_bytes, stored.sha256) == (LARGE, hashlib.sha256(BLOCK * 20).hexdigest())
    assert store.read("large") == BLOCK * 20
    start, end = PART_BYTES - 7, 2 * PART_BYTES + 7
    assert b"".join(store.stream("large", start=start, end=end)) == (BLOCK * 20)[start:end]
    assert bucket.unfinished() == []


def test_a_large_write_whose_source_fails_is_aborted(store: S3Store, bucket: Bucket) -> None:
    def broken() -> Iterator[bytes]:
        yield from [BLOCK] * 18
        assert bucket.unfinished() == ["large"]
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        store.write("large", broken())

    assert (bucket.object_keys(), bucket.unfinished()) == ([], [])


def test_uris_are_those_that_a_trainer_opens(store: S3Store, bucket: Bucket) -> None:
    assert store.uri("files/a") == f"{bucket.url}/files/a"


def test_a_presigned_url_needs_no_key_names_the_file_and_gives_ranges(store: S3Store) -> None:
    store.write("files/a", [b"0123456789"])
    url = store.download_url("files/a", content_disposition='attachment; filename="a b.jsonl"')

    whole = httpx2.get(url)
    part = httpx2.get(url, headers={"range": "bytes=2-4"})

    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-disposition"] == 'attachment; filename="a b.jsonl"'
    assert whole.headers["content-type"] == "application/octet-stream"
    assert (part.status_code, part.content) == (206, b"234")


def test_a_presigned_url_that_was_changed_or_has_expired_opens_nothing(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("files/a", [b"mine"])
    store.write("files/b", [b"yours"])
    url = store.download_url("files/a", content_disposition="attachment")
    monkeypatch.setattr(s3, "URL_LIFETIME_S", 0)
    expired = store.download_url("files/a", content_disposition="attachment")

    assert httpx2.get(url.replace("files/a", "files/b")).status_code == 403
    assert httpx2.get(re.sub("Expires=[0-9]+", "Expires=604800", url)).status_code == 403
    assert httpx2.get(expired).status_code == 403


def test_a_marker_of_a_folder_is_no_object(store: S3Store, bucket: Bucket) -> None:
    bucket.client().put_object(Bucket="dpo-tests", Key=f"{bucket.prefix}/runs/", Body=b"")

    assert store.list_keys("") == []


def test_more_keys_than_a_page_holds_are_all_listed(store: S3Store) -> None:
    events = store._client.meta.events  # the page's size is the server's: only a request can make it smaller
    events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2})
    asked: list[str] = []
    events.register("before-call.s3.ListObjectsV2", lambda event_name, **_: asked.append(event_name))
    for number in range(5):
        store.write(f"a/{number}", [b""])

    assert store.list_keys("a/") == [f"a/{number}" for number in range(5)]
    assert len(asked) == 3


def test_only_old_leftovers_are_swept(store: S3Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.client().create_multipart_upload(Bucket="dpo-tests", Key=f"{bucket.prefix}/killed")

    assert store.sweep_leftovers() == 0
    assert bucket.unfinished() == ["killed"]
    monkeypatch.setattr(s3, "LEFTOVER_AGE", timedelta(seconds=-5))
    assert store.sweep_leftovers() == 1
    assert bucket.unfinished() == []


def test_a_probe_leaves_nothing(store: S3Store, bucket: Bucket) -> None:
    store.check_writable()

    assert (bucket.object_keys(), bucket.unfinished()) == ([], [])


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody:here")], ids=["secret", "key"]
)
def test_a_wrong_key_is_told_with_what_to_check_and_never_shown(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    store = S3Store(bucket.url, endpoint_url=bucket.server.endpoint_url)

    for act in (
        store.check_writable,
        lambda: store.write("a", [b"x"]),
        lambda: store.read("a"),
        lambda: store.size_bytes("a"),
    ):
        with pytest.raises(StoreError, match="access was refused") as caught:
            act()
        assert caught.value.errno == errno.EACCES
        assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in caught.value.remedy
        assert bucket.server.secret_key not in str(caught.value)


def test_no_key_at_all_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(StoreError, match="no credentials: set AWS_ACCESS_KEY_ID"):
        S3Store(bucket.url, endpoint_url=bucket.server.endpoint_url).check_writable()


def test_a_missing_bucket_is_no_missing_object(bucket: Bucket) -> None:
    store = S3Store("s3://never-made/prefix", endpoint_url=bucket.server.endpoint_url)

    for act in (
        store.check_writable,
        lambda: store.read("a"),
        lambda: store.size_bytes("a"),
        lambda: store.list_keys(""),
    ):
        with pytest.raises(StoreError, match='create the bucket "never-made" at http'):
            act()


def test_a_server_that_is_away_is_an_os_error_and_its_return_is_noticed(far_store: S3Store, relay: Relay) -> None:
    far_store.write("a", [b"before"])
    relay.go_down()

    with pytest.raises(StoreError, match="does not answer: check DPO_S3_ENDPOINT_URL"):
        far_store.read("a")
    with pytest.raises(OSError, match="does not answer"):
        far_store.write("b", [b"x"])

    relay.come_back()
    assert far_store.read("a") == b"before"
    with pytest.raises(ObjectNotFound):
        far_store.read("b")


def test_a_server_that_is_not_there_is_told(bucket: Bucket) -> None:
    store = S3Store(bucket.url, endpoint_url="http://127.0.0.1:1")

    with pytest.raises(StoreError, match="does not answer: check DPO_S3_ENDPOINT_URL"):
        store.check_writable()


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(store: S3Store, far_store: S3Store, relay: Relay) -> None:
    store.write("large", [BLOCK] * 20)
    relay.cut("answers", times=3, after_bytes=2 * len(BLOCK))

    assert b"".join(far_store.stream("large", start=5)) == (BLOCK * 20)[5:]

    relay.cut("answers", times=2, after_bytes=2 * len(BLOCK))
    assert far_store.read("large") == BLOCK * 20


def test_a_download_that_is_cut_off_for_ever_is_an_os_error(store: S3Store, far_store: S3Store, relay: Relay) -> None:
    store.write("large", [BLOCK] * 3)
    relay.cut("answers", times=1000, after_bytes=1000)

    with pytest.raises(StoreError):
        far_store.read("large")
    with pytest.raises(StoreError):
        list(far_store.stream("large"))


def test_a_part_that_is_cut_off_on_its_way_is_sent_again(far_store: S3Store, relay: Relay, bucket: Bucket) -> None:
    relay.cut("requests", times=2, after_bytes=len(BLOCK))

    far_store.write("large", [BLOCK] * 20)

    assert far_store.read("large") == BLOCK * 20
    assert bucket.unfinished() == []


def test_an_upload_that_is_cut_off_for_ever_leaves_nothing(far_store: S3Store, relay: Relay, bucket: Bucket) -> None:
    far_store.write("large", [b"old"])
    relay.cut("requests", times=1000, after_bytes=len(BLOCK))

    with pytest.raises(StoreError):
        far_store.write("large", [BLOCK] * 20)

    assert (far_store.read("large"), bucket.object_keys(), bucket.unfinished()) == (b"old", ["large"], [])


def test_an_object_replaced_while_it_is_read_is_never_a_mixture(store: S3Store) -> None:
    store.write("a", [b"old" * 1_000_000])
    reading = store.stream("a")
    store.write("a", [b"new" * 1_000_000])

    with pytest.raises(StoreError, match="PreconditionFailed"):
        list(reading)


def test_a_conditional_write_is_told_as_the_server_takes_it(store: S3Store) -> None:
    assert store.write_if_absent("a", b"first")
    assert not store.write_if_absent("a", b"second")
    assert store.read("a") == b"first"


MEMORY = """
import resource, sys
from service.storage.open_store import open_store
store = open_store(sys.argv[1], s3_endpoint_url=sys.argv[2])
block = bytes(1024 * 1024)
store.write("small", [block])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.write("large", (block for _ in range(200)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_write_holds_a_few_parts_in_memory_however_large_it_is(bucket: Bucket) -> None:
    arguments = [sys.executable, "-c", MEMORY, bucket.url, bucket.server.endpoint_url]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)

    assert int(done.stdout) < 64
