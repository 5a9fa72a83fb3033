"""One POST to one checked address: no redirects, no proxy, no body read, and an end whatever the peer does."""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.webhooks.targets import Target, TargetRefused, parse_target, resolve_target

TIMEOUT_S = 10.0
"""From the first byte of the connection to the answer's headers."""


class PostFailed(Exception):
    """No answer came. The message may be shown to the user."""


class WebhookPoster:
    def __init__(self, *, allows_loopback: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self.allows_loopback = allows_loopback
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> int:
        """Return the answer's status, whatever it is. Raises: PostFailed."""
        try:
            target = parse_target(url, allows_loopback=self.allows_loopback)
            address = resolve_target(target, allows_loopback=self.allows_loopback)
        except TargetRefused as error:
            raise PostFailed(str(error)) from error
        try:
            with self._connect(target, address) as connected:
                return self._exchange(target, connected, headers=headers, body=body)
        except (OSError, http.client.HTTPException) as error:
            raise PostFailed(f"no answer from {target.host}: {_cause(error, self._timeout_s)}") from error

    def _connect(self, target: Target, address: str) -> socket.socket:
        connected = socket.create_connection((address, target.port), self._timeout_s)
        if not target.is_tls:
            return connected
        # The handshake is left for later: by then the deadline runs.
        return self._tls.wrap_socket(connected, server_hostname=target.host, do_handshake_on_connect=False)

    def _exchange(self, target: Target, connected: socket.socket, *, headers: Mapping[str, str], body: bytes) -> int:
        with _cut_after(self._timeout_s, connected):
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock = connected
            connection.request("POST", target.path, body, dict(headers))
            return connection.getresponse().status


@contextmanager
def _cut_after(timeout_s: float, connected: socket.socket) -> Iterator[None]:
    """A socket's own timeout begins anew with every byte: a peer could drip for hours.

    Raises: TimeoutError after the cut, which the block takes for a broken connection, or even for the headers' end.
    """
    was_cut = threading.Event()
    deadline = threading.Timer(timeout_s, _cut, [connected, was_cut])
    deadline.start()
    try:
        yield
    finally:
        deadline.cancel()
        if was_cut.is_set():
            raise TimeoutError


def _cut(connected: socket.socket, was_cut: threading.Event) -> None:
    """End what blocks on the socket; an SSLSocket's own shutdown would pull its state from under the reader."""
    was_cut.set()
    try:
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    except OSError:
        return  # it was closed already


def _cause(error: Exception, timeout_s: float) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not valid ({error.verify_message})"
        case ssl.SSLError():
            return "it does not speak TLS as it should"
        case TimeoutError():
            return f"none within {timeout_s:g} s"
        case OSError():
            return error.strerror or "the connection broke off"
        case _:
            return "what it sent is not HTTP"
