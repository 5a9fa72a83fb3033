"""A TCP relay before a real server that does what networks do: refuses, cuts off, and comes back."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

BLOCK_BYTES = 65_536


class Relay:
    """`cuts` answers (or requests) are cut off after `after_bytes`; while `is_down`, nothing is let through."""

    def __init__(self, target_url: str) -> None:
        url = urlsplit(target_url)
        assert url.hostname
        assert url.port
        self._target = (url.hostname, url.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_down = False
        self._open: set[socket.socket] = set()
        self._cuts = {"answers": 0, "requests": 0}
        self._after_bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, what: str, *, times: int, after_bytes: int) -> None:
        """`what`: answers or requests; one that is shorter is let through, and not counted."""
        self._after_bytes = after_bytes
        self._cuts[what] = times

    def go_down(self) -> None:
        self.is_down = True
        for connection in list(self._open):
            _hang_up(connection)

    def come_back(self) -> None:
        self.is_down = False

    def close(self) -> None:
        self.go_down()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_down:
                    _hang_up(client)
                    continue
                server = socket.create_connection(self._target)
                self._open |= {client, server}
                for what, source, sink in (("requests", client, server), ("answers", server, client)):
                    threading.Thread(target=self._pump, args=(what, source, sink), daemon=True).start()

    def _pump(self, what: str, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while block := source.recv(BLOCK_BYTES):
                passed += len(block)
                if self._cuts[what] and passed > self._after_bytes:
                    self._cuts[what] -= 1
                    break
                sink.sendall(block)
        for connection in (source, sink):
            _hang_up(connection)
            self._open.discard(connection)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def relayed(target_url: str) -> Iterator[Relay]:
    relay = Relay(target_url)
    try:
        yield relay
    finally:
        relay.close()
