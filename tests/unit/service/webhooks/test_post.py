"""One POST over a real socket: what is sent, and that no peer can hold it, lead it elsewhere or feed it."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.webhooks.post import PostFailed, WebhookPoster
from tests.unit.service.webhooks.receiver import receiving

HEADERS = {"content-type": "application/json", "webhook-id": "wh_1"}
LATE = r"no answer from 127\.0\.0\.1: none within 0\.5 s"
Act = Callable[[socket.socket], None]


@contextmanager
def peer(act: Act) -> Iterator[int]:
    """Accept one connection on this machine, act on it, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connected, _ = listener.accept()
            with connected:
                try:
                    act(connected)
                except OSError:
                    return  # the poster has hung up

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def post(url: str, *, timeout_s: float = 5.0) -> int:
    return WebhookPoster(allows_loopback=True, timeout_s=timeout_s).post(url, headers=HEADERS, body=b'{"a": 1}')


def test_a_post_arrives_as_it_was_meant() -> None:
    with receiving() as receiver:
        assert post(receiver.url) == 200
    [received] = receiver.received
    assert (received.path, received.body) == ("/hooks?x=1", b'{"a": 1}')
    assert received.headers.items() >= HEADERS.items()
    assert received.headers["host"] == receiver.url.split("/")[2]


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with receiving() as inside, receiving() as receiver:
        receiver.statuses, receiver.location = [307], inside.url
        assert post(receiver.url) == 307
    assert inside.received == []


def test_without_the_setting_this_machine_is_not_sent_to() -> None:
    with receiving() as receiver, pytest.raises(PostFailed, match="not on the public internet"):
        WebhookPoster().post(receiver.url, headers=HEADERS, body=b"{}")
    assert receiver.received == []


def test_a_peer_that_drips_is_cut_off_in_time() -> None:
    def drip(connected: socket.socket) -> None:
        connected.recv(4096)
        for byte in b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000:
            connected.sendall(bytes([byte]))
            time.sleep(0.05)

    with peer(drip) as port:
        before = time.monotonic()
        with pytest.raises(PostFailed, match=LATE):
            post(f"http://127.0.0.1:{port}/", timeout_s=0.5)
        assert time.monotonic() - before < 3


def test_a_handshake_that_drips_is_cut_off_in_time() -> None:
    def drip(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record of 16 KiB
        for _ in range(1000):
            connected.sendall(b"\x02")
            time.sleep(0.05)

    with peer(drip) as port:
        before = time.monotonic()
        with pytest.raises(PostFailed, match=LATE):
            post(f"https://127.0.0.1:{port}/", timeout_s=0.5)
        assert time.monotonic() - before < 3


def test_a_silent_peer_is_left() -> None:
    with peer(lambda connected: time.sleep(1)) as port, pytest.raises(PostFailed, match=LATE):
        post(f"http://127.0.0.1:{port}/", timeout_s=0.5)


def test_headers_that_are_not_whole_in_time_are_no_answer() -> None:
    def say_half(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(b"HTTP/1.1 200 OK\r\na: b\r\n")
        time.sleep(1)

    with peer(say_half) as port, pytest.raises(PostFailed, match=LATE):
        post(f"http://127.0.0.1:{port}/", timeout_s=0.5)


def test_an_endless_body_is_not_read() -> None:
    def pour(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        for _ in range(10_000):
            connected.sendall(bytes(100_000))

    with peer(pour) as port:
        before = time.monotonic()
        assert post(f"http://127.0.0.1:{port}/") == 200
        assert time.monotonic() - before < 3


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n", id="a header line without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000 + b"\r\n", id="headers without end"),
    ],
)
def test_what_is_no_answer_is_told(said: bytes) -> None:
    def say(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(said)

    with peer(say) as port, pytest.raises(PostFailed, match="no answer from"):
        post(f"http://127.0.0.1:{port}/")


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PostFailed, match="refused"):
        post(f"http://127.0.0.1:{port}/")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def shake_hands(connected: socket.socket) -> None:
        with context.wrap_socket(connected, server_side=True) as secured:
            secured.recv(4096)

    with peer(shake_hands) as port, pytest.raises(PostFailed, match="certificate is not valid"):
        post(f"https://127.0.0.1:{port}/")
