"""Uploads that go wrong leave no row and no bytes; those that go well keep memory flat."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.contract.rows import PAIR, upload
from tests.contract.server import MAX_FILE_BYTES, ProjectAccess, Server

MEGABYTE = 1024 * 1024
HEAD = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\n'
PART_HEAD = b'--b\r\ncontent-disposition: form-data; name="data"; filename="a"\r\n\r\n'
FILE_HEAD = b'content-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'


@dataclass(frozen=True, slots=True)
class Standalone:
    """The API in a process of its own, warm."""

    client: OpenAI
    process_id: int
    peak_before: int

    def grown_bytes(self) -> int:
        return _peak_memory(self.process_id) - self.peak_before


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Standalone]:
    command = [sys.executable, "-m", "tests.contract.standalone", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url, key = process.stdout.readline().split()
        with OpenAI(base_url=f"{url}/v1", api_key=key) as client:
            upload(client)
            yield Standalone(client, process.pid, _peak_memory(process.pid))
        process.stdin.close()


@pytest.fixture
def keys_before(server: Server) -> list[str]:
    return server.store.list_keys("files/")


@pytest.mark.parametrize(
    ("form", "status", "param"),
    [
        pytest.param({"data": {"purpose": "fine-tune"}, "files": {"fle": b"x"}}, 400, "fle", id="unknown part"),
        pytest.param({"files": {"file": PAIR}}, 400, "purpose", id="no purpose"),
        pytest.param({"data": {"purpose": "batch"}, "files": {"file": PAIR}}, 400, "purpose", id="wrong purpose"),
        pytest.param({"data": {"purpose": "fine-tune"}, "files": {"file": b""}}, 400, "file", id="empty file"),
        pytest.param({"json": {"purpose": "fine-tune"}}, 400, None, id="not a form"),
        pytest.param({}, 400, None, id="no body"),
    ],
)
def test_a_bad_form_leaves_nothing(
    http: httpx2.Client, server: Server, keys_before: list[str], form: dict[str, object], status: int, param: str | None
) -> None:
    answer = http.post("/v1/files", **form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    _assert_nothing_left(http, server, keys_before)


def test_a_too_large_file_is_cut_off(
    client: OpenAI, http: httpx2.Client, server: Server, keys_before: list[str]
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.files.create(file=("a.jsonl", b"x" * (MAX_FILE_BYTES + 1)), purpose="fine-tune")
    assert (raised.value.status_code, raised.value.code, raised.value.param) == (413, "file_too_large", "file")
    assert "send it in parts to POST /v1/uploads" in raised.value.message
    _assert_nothing_left(http, server, keys_before)


def test_a_file_of_exactly_the_cap_is_taken(client: OpenAI) -> None:
    file_id = upload(client, content=b"x" * MAX_FILE_BYTES)
    assert client.files.retrieve(file_id).bytes == MAX_FILE_BYTES


def test_a_too_large_length_is_refused_at_once(server: Server, project: ProjectAccess) -> None:
    with _begin_upload(server, project, length=MAX_FILE_BYTES * 2) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_without_a_length_is_cut_while_it_streams(
    http: httpx2.Client, server: Server, keys_before: list[str]
) -> None:
    def body() -> Iterator[bytes]:
        yield HEAD + FILE_HEAD
        yield from (b"x" * 100_000 for _ in range(MAX_FILE_BYTES // 100_000 + 1))
        yield b"\r\n--b--\r\n"

    answer = http.post("/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413
    _assert_nothing_left(http, server, keys_before)


def test_an_upload_that_breaks_off_leaves_nothing(
    http: httpx2.Client, server: Server, project: ProjectAccess, keys_before: list[str]
) -> None:
    with _begin_upload(server, project, length=1_000_000) as connection:
        connection.sendall(HEAD + FILE_HEAD + b"x" * 500_000)
        _wait_until(lambda: bool(_half_written(server)))
    _assert_nothing_left(http, server, keys_before)


def test_a_part_that_breaks_off_leaves_nothing(client: OpenAI, server: Server, project: ProjectAccess) -> None:
    upload_id = client.uploads.create(bytes=1, filename="a", mime_type="text/jsonl", purpose="fine-tune").id
    path = f"/v1/uploads/{upload_id}/parts"
    with _begin_upload(server, project, path=path, length=1_000_000) as connection:
        connection.sendall(PART_HEAD + b"x" * 500_000)
        _wait_until(lambda: bool(_half_written(server)))
    _wait_until(lambda: not _half_written(server))
    assert server.store.list_keys(f"uploads/{upload_id}/") == []


def test_an_upload_in_single_bytes_is_whole(client: OpenAI, server: Server, project: ProjectAccess) -> None:
    body = HEAD + FILE_HEAD + PAIR + b"\r\n--b--\r\n"
    with _begin_upload(server, project, length=len(body)) as connection:
        for byte in body:
            connection.sendall(bytes([byte]))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    [file] = client.files.list().data
    assert client.files.content(file.id).read() == PAIR


@pytest.mark.slow
def test_memory_stays_flat_in_the_files_size(standalone: Standalone, tmp_path: Path) -> None:
    big = tmp_path / "big.jsonl"
    with big.open("wb") as file:
        file.truncate(120 * MEGABYTE)
    created = standalone.client.files.create(file=big, purpose="fine-tune")
    with standalone.client.files.with_streaming_response.content(created.id) as content:
        assert sum(len(chunk) for chunk in content.iter_bytes()) == created.bytes == 120 * MEGABYTE
    assert standalone.grown_bytes() < 40 * MEGABYTE


@pytest.mark.slow
def test_memory_stays_flat_in_an_uploads_size(standalone: Standalone, tmp_path: Path) -> None:
    big = tmp_path / "big.jsonl"
    with big.open("wb") as file:
        file.truncate(120 * MEGABYTE)
    completed = standalone.client.uploads.upload_file_chunked(
        file=big, mime_type="text/jsonl", purpose="fine-tune", part_size=40 * MEGABYTE
    )
    assert completed.file is not None
    assert completed.file.bytes == 120 * MEGABYTE
    assert standalone.grown_bytes() < 40 * MEGABYTE


def _begin_upload(server: Server, project: ProjectAccess, *, length: int, path: str = "/v1/files") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {project.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return connection


def _assert_nothing_left(http: httpx2.Client, server: Server, keys_before: list[str]) -> None:
    assert http.get("/v1/files").json()["data"] == []
    _wait_until(lambda: not _half_written(server))
    assert server.store.list_keys("files/") == keys_before


def _half_written(server: Server) -> list[Path]:
    return list((server.store_root / ".incoming").glob("*"))


def _wait_until(is_so: Callable[[], bool]) -> None:
    """The server sees a closed connection a moment after it was closed."""
    give_up_at = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def _peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
