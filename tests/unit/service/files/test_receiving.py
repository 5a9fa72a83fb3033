"""An upload from body to store: what is taken, and that nothing is left of what is not."""

import asyncio
import hashlib
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import OpenAI

from service.files.receiving import ReceivedUpload, receive_upload
from service.files.upload_errors import UploadError, UploadNotStored, UploadTooLarge
from service.storage.folder import FolderStore
from service.storage.object_store import StoredObject
from tests.unit.service.files.forms import (
    ANCHOR,
    CONTENT_TYPE,
    PURPOSE,
    ROWS,
    cut,
    field,
    file_part,
    form,
    streamed,
)

KEY = "files/file-1"
MAX_BYTES = 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def upload(
    store: FolderStore, chunks: Iterable[bytes], *, content_type: str = CONTENT_TYPE, max_bytes: int = MAX_BYTES
) -> ReceivedUpload:
    return asyncio.run(receive_upload(content_type, streamed(chunks), store=store, object_key=KEY, max_bytes=max_bytes))


def files_in(store: FolderStore) -> list[Path]:
    return [path for path in Path(store.uri("x")).parent.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([PURPOSE, file_part()], id="purpose first"),
        pytest.param([file_part(), PURPOSE], id="file first"),
        pytest.param([ANCHOR, file_part(), field("expires_after[seconds]", b"3600"), PURPOSE], id="between"),
    ],
)
def test_fields_may_come_in_any_order(store: FolderStore, parts: list[bytes]) -> None:
    received = upload(store, [form(*parts)])

    assert store.read(KEY) == ROWS
    assert received == ReceivedUpload(
        filename="rows.jsonl",
        purpose="fine-tune",
        size_bytes=len(ROWS),
        sha256=hashlib.sha256(ROWS).hexdigest(),
        expires_after_s=3600 if ANCHOR in parts else None,
        object_key=KEY,
    )


def test_the_stock_clients_form_is_understood(store: FolderStore) -> None:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        request.read()
        requests.append(request)
        return httpx2.Response(200, json={})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as transport:
        client = OpenAI(api_key="k", base_url="http://test/v1", http_client=transport)
        expiry = {"anchor": "created_at", "seconds": 86_400}
        client.files.create(file=("мои пары.jsonl", ROWS), purpose="fine-tune", expires_after=expiry)  # type: ignore[arg-type]

    received = upload(store, [requests[0].content], content_type=requests[0].headers["content-type"])

    assert (received.filename, received.expires_after_s) == ("мои пары.jsonl", 86_400)
    assert store.read(KEY) == ROWS


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=100), size=st.integers(1, 50))
def test_any_content_arrives_however_the_body_was_cut(store: FolderStore, content: bytes, size: int) -> None:
    content = content.replace(b"--boundary", b"") or b"x"

    received = upload(store, cut(form(file_part(content), PURPOSE), size))

    assert store.read(KEY) == content
    assert received.size_bytes == len(content)


BAD_FORMS = {
    "no file": (form(PURPOSE), "file", "has no file"),
    "empty file": (form(PURPOSE, file_part(b"")), "file", "is empty"),
    "file as a field": (form(PURPOSE, field("file", ROWS)), "file", "no filename"),
    "two files": (form(PURPOSE, file_part(), file_part()), "file", "more than one"),
    "no purpose": (form(file_part()), "purpose", 'add purpose="fine-tune"'),
    "other purpose": (form(file_part(), field("purpose", b"assistants")), "purpose", '"assistants"'),
    "two purposes": (form(PURPOSE, PURPOSE, file_part()), "purpose", "more than one"),
    "unknown field": (form(file_part(), PURPOSE, field("purpos", b"x")), "purpos", "did you mean purpose?"),
    "long field": (form(file_part(), field("purpose", b"x" * 2000)), "purpose", "more than 1024 bytes"),
    "field of other bytes": (form(file_part(), field("purpose", b"\xff")), "purpose", "not UTF-8"),
    "other anchor": (form(field("expires_after[anchor]", b"now")), "expires_after.anchor", '"created_at"'),
    "no seconds": (form(PURPOSE, file_part(), ANCHOR), "expires_after.seconds", "is missing"),
    "no anchor": (
        form(PURPOSE, file_part(), field("expires_after[seconds]", b"3600")),
        "expires_after.anchor",
        "is missing",
    ),
    "no name": (b"--boundary\r\nContent-Disposition: form-data\r\n\r\nx\r\n--boundary--", None, "has no name"),
    "no form": (b"hello", None, "not valid multipart"),
    "nothing": (b"", "file", "ended before"),
    "broken off in the file": (form(PURPOSE, file_part(ROWS * 100))[:-200], "file", "ended before"),
    "broken off before the end": (form(file_part(), PURPOSE)[:-6], "file", "ended before"),
}


@pytest.mark.parametrize(("body", "param", "words"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
def test_a_bad_form_is_refused_and_leaves_nothing(
    store: FolderStore, body: bytes, param: str | None, words: str
) -> None:
    with pytest.raises(UploadError) as caught:
        upload(store, [body])

    assert (caught.value.status, caught.value.param) == (400, param), caught.value.message
    assert words in caught.value.message
    assert files_in(store) == []


@pytest.mark.parametrize("seconds", ["3599", "2592001", "-1", "3.6e3", "٣٦٠٠", "1" * 500, "", "True"])
def test_a_lifetime_out_of_range_is_refused(store: FolderStore, seconds: str) -> None:
    with pytest.raises(UploadError, match="give a whole number from 3,600 to 2,592,000") as caught:
        upload(store, [form(PURPOSE, ANCHOR, field("expires_after[seconds]", seconds.encode()), file_part())])

    assert caught.value.param == "expires_after.seconds"
    assert files_in(store) == []


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("application/json", "is application/json; send multipart/form-data"),
        ("", "is missing"),
        ("multipart/form-data", "names no boundary"),
        (f"multipart/form-data; boundary={'x' * 300}", "names no boundary"),
    ],
)
def test_another_content_type_is_refused(store: FolderStore, content_type: str, words: str) -> None:
    with pytest.raises(UploadError, match=words):
        upload(store, [form(PURPOSE, file_part())], content_type=content_type)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\Users\\\\me\\\\rows.jsonl", "rows.jsonl"),
        ("a\u202egpj.jsonl", "agpj.jsonl"),
        ("tab\there.jsonl", "tabhere.jsonl"),
        ("x" * 300, "x" * 255),
        ("..", "upload"),
        ("", "upload"),
        ("dir/", "upload"),
    ],
)
def test_filenames_are_sanitised(store: FolderStore, sent: str, kept: str) -> None:
    assert upload(store, [form(PURPOSE, file_part(filename=sent))]).filename == kept


def test_the_cap_cuts_while_streaming(store: FolderStore) -> None:
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        yield PURPOSE + file_part()[:-2]
        while True:
            sent.append(100_000)
            yield b"x" * 100_000

    with pytest.raises(UploadTooLarge, match="larger than 1,000,000 bytes") as caught:
        upload(store, endless())

    assert caught.value.status == 413
    assert sum(sent) < 1_200_000
    assert files_in(store) == []


def test_a_file_of_exactly_the_cap_is_taken(store: FolderStore) -> None:
    assert upload(store, [form(PURPOSE, file_part(b"x" * 5000))], max_bytes=5000).size_bytes == 5000


def test_a_body_of_endless_epilogue_is_cut(store: FolderStore) -> None:
    with pytest.raises(UploadTooLarge):
        upload(store, [form(PURPOSE, file_part()), *[b"x" * 100_000] * 20])

    assert files_in(store) == []


def test_a_client_that_goes_away_leaves_nothing(store: FolderStore) -> None:
    def leaving() -> Iterator[bytes]:
        yield PURPOSE + file_part(b"x" * 900_000)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        upload(store, leaving())

    assert files_in(store) == []


def test_a_cancelled_upload_leaves_nothing_and_no_thread(store: FolderStore) -> None:
    async def scenario() -> None:
        waiting = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            yield PURPOSE + file_part(b"x" * 3_000_000)
            waiting.set()
            await asyncio.Event().wait()

        receiving = receive_upload(CONTENT_TYPE, stalling(), store=store, object_key=KEY, max_bytes=10**7)
        task = asyncio.create_task(receiving)
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())

    assert files_in(store) == []
    for thread in threading.enumerate():
        if thread.name.startswith("upload"):
            thread.join(timeout=30)  # it may still be on its way out
            assert not thread.is_alive()


def test_an_upload_cancelled_while_it_commits_leaves_nothing(tmp_path: Path) -> None:
    entered, released = threading.Event(), threading.Event()

    class SlowStore(FolderStore):
        def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
            stored = super().write(key, chunks)
            entered.set()
            assert released.wait(timeout=30)
            return stored

    async def scenario(store: FolderStore) -> None:
        body = streamed([form(PURPOSE, file_part())])
        receiving = receive_upload(CONTENT_TYPE, body, store=store, object_key=KEY, max_bytes=MAX_BYTES)
        task = asyncio.create_task(receiving)
        await asyncio.to_thread(entered.wait, 30)
        task.cancel()
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    store = SlowStore(tmp_path)
    asyncio.run(scenario(store))

    assert files_in(store) == []


class FullStore(FolderStore):
    """A disk that is full after the first block."""

    def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        def until_full() -> Iterator[bytes]:
            yield next(iter(chunks))
            raise OSError(28, "No space left on device")

        return super().write(key, until_full())


@pytest.mark.parametrize("size_bytes", [10, 30_000_000], ids=["at the end", "midway"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, size_bytes: int) -> None:
    store = FullStore(tmp_path / "store")

    with pytest.raises(UploadNotStored, match="No space left on device") as caught:
        upload(store, cut(form(PURPOSE, file_part(b"x" * size_bytes)), 1_000_000), max_bytes=10**9)

    assert (caught.value.status, caught.value.error_type) == (503, "server_error")
    assert files_in(store) == []


def test_memory_is_flat_in_the_files_size(store: FolderStore) -> None:
    block = b"x" * 65_536

    def body() -> Iterator[bytes]:
        yield PURPOSE + file_part()[:-2]
        yield from (block for _ in range(800))
        yield b"\r\n--boundary--\r\n"

    tracemalloc.start()
    received = upload(store, body(), max_bytes=10**9)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert received.size_bytes > 50_000_000
    assert peak_bytes < 15_000_000


def test_the_event_loop_runs_on_while_the_store_writes(tmp_path: Path) -> None:
    class StuckStore(FolderStore):
        released = threading.Event()

        def write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
            assert self.released.wait(timeout=30)
            return super().write(key, chunks)

    async def scenario() -> ReceivedUpload:
        store = StuckStore(tmp_path)
        body = streamed(cut(form(PURPOSE, file_part(b"x" * 20_000_000)), 1_000_000))
        task = asyncio.create_task(receive_upload(CONTENT_TYPE, body, store=store, object_key=KEY, max_bytes=10**8))
        await asyncio.sleep(0)
        store.released.set()
        return await task

    assert asyncio.run(scenario()).size_bytes == 20_000_000


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_spoilt_body_is_an_upload_error_or_an_upload(store: FolderStore, data: st.DataObject) -> None:
    body = bytearray(form(PURPOSE, ANCHOR, field("expires_after[seconds]", b"3600"), file_part()))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        upload(store, cut(bytes(body), data.draw(st.integers(1, 200))))
    except UploadError:
        assert files_in(store) == []
    store.delete(KEY)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_an_upload_error(store: FolderStore, body: bytes) -> None:
    with pytest.raises(UploadError):
        upload(store, [b"--boundary\r\n", body])
