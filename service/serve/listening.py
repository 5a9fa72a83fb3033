"""The listening socket, taken before anything else starts: a taken port costs nobody a cluster start."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from service.serve.start_errors import StartError

REMEDIES = {
    errno.EADDRINUSE: "is taken; stop what listens there, or choose another with --port or DPO_PORT (0: any free one)",
    errno.EACCES: "needs privileges; choose a port of 1024 or above with --port or DPO_PORT",
    errno.EADDRNOTAVAIL: "is no address of this machine; choose another with --host or DPO_HOST",
}


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a bound socket. Raises: StartError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle off only where the protocol is named: a poll takes 2 ms, not 44.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise StartError(
            f"The host {host} cannot be resolved ({error}); give another with --host or DPO_HOST."
        ) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(socket.SOMAXCONN)  # a bound port is only taken once it listens
        except OSError as error:
            remedy = REMEDIES.get(error.errno or 0, f"cannot be listened on ({error})")
            raise StartError(f"Port {port} on {host} {remedy}.") from error
        yield listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # told, not listened on
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
