"""Heads and trailers end somewhere; bodies do not."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request

from service.serve.http_protocol import MAX_HEAD_BYTES
from service.serve.http_server import http_server
from tests.contract.server import listening

pytestmark = pytest.mark.slow

TOO_MUCH = 40 * MAX_HEAD_BYTES
"""More than one read takes."""
LONG_S = 10.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.post("/")
    async def count(request: Request) -> int:
        return len(await request.body())

    with listening(http_server(app)) as port:
        yield port


def answer_of(port: int, *parts: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=LONG_S) as connection:
        sending = threading.Thread(target=send, args=(connection, parts))
        sending.start()
        received = b""
        while chunk := receive(connection):
            received += chunk
        sending.join()
        return received


def send(connection: socket.socket, parts: tuple[bytes, ...]) -> None:
    for part in parts:
        try:
            connection.sendall(part)
        except OSError:
            return  # the server has heard enough


def receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


HEAD = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    "flood",
    [b"a: " + b"b" * TOO_MUCH, b"a: b\r\n" * (TOO_MUCH // 6)],
    ids=["one long header", "many short ones"],
)
def test_a_head_without_end_is_cut(port: int, flood: bytes) -> None:
    assert not answer_of(port, HEAD, flood, b"\r\n\r\n").startswith(b"HTTP/1.1 2")


def test_a_head_that_comes_slowly_is_told_what_is_wrong_with_it(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=LONG_S) as connection:
        connection.sendall(HEAD)
        for _ in range(3):
            time.sleep(0.1)
            connection.sendall(b"a: " + b"b" * (MAX_HEAD_BYTES // 2) + b"\r\n")
        assert receive(connection).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_trailers_without_end_are_cut(port: int) -> None:
    chunk = b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    assert not answer_of(port, HEAD, chunk, b"a: b\r\n" * (TOO_MUCH // 6)).startswith(b"HTTP/1.1 2")


def test_a_long_head_with_a_long_body_is_read(port: int) -> None:
    head = HEAD + b"a: " + b"b" * (MAX_HEAD_BYTES // 2) + b"\r\n"
    answer = answer_of(port, head, b"content-length: %d\r\n\r\n" % TOO_MUCH, b"x" * TOO_MUCH)
    assert answer.endswith(b"\r\n\r\n%d" % TOO_MUCH)
