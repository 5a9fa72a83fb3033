"""From a user's URL to the addresses it may be sent to; everything else is refused, with the reason a user may know.

The name is resolved once and the connection goes to what was checked: asked twice, a name could answer twice.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from service.webhooks.addresses import is_loopback, is_public

PORTS = {"https": 443, "http": 80}


class TargetRefused(ValueError):
    """The URL is none that this service sends to. The message may be shown to the user."""


@dataclass(frozen=True, slots=True)
class Target:
    is_tls: bool
    host: str
    """As certificates name it: ASCII, without brackets."""
    port: int
    path: str
    """With the query."""


def parse_target(url: str, *, allows_loopback: bool) -> Target:
    """Read the URL, and judge a numeric host at once; a name is only looked up when it is sent to.

    Raises: TargetRefused.
    """
    parts = _split(url)
    target = Target(
        is_tls=parts.scheme == "https",
        host=_ascii_host(parts.hostname or ""),
        port=parts.port or PORTS[parts.scheme],
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )
    numeric = _look_up(target, flags=socket.AI_NUMERICHOST)
    if numeric:
        _check(target, numeric, allows_loopback=allows_loopback)
    elif not target.is_tls and not (allows_loopback and target.host == "localhost"):
        raise _not_https()
    return target


def resolve_target(target: Target, *, allows_loopback: bool) -> str:
    """Return the address to connect to. Raises: TargetRefused."""
    addresses = _look_up(target, flags=0)
    if not addresses:
        raise TargetRefused(f"the host {target.host} does not resolve")
    _check(target, addresses, allows_loopback=allows_loopback)
    return addresses[0]


def _split(url: str) -> SplitResult:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise TargetRefused("the URL has spaces, control or other than ASCII characters; encode them (%20, punycode)")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise TargetRefused(f"the URL cannot be read: {error}") from error
    if parts.scheme not in PORTS:
        raise _not_https()
    if not parts.hostname or parts.username is not None or parts.password is not None or parts.port == 0:
        raise TargetRefused("the URL needs a host, and takes no user or password: https://host/path")
    if parts.fragment:
        raise TargetRefused("the URL has a #fragment, which is never sent; remove it")
    return parts


def _ascii_host(host: str) -> str:
    try:
        return host.encode("idna").decode().rstrip(".")
    except UnicodeError as error:
        raise TargetRefused(f"the host cannot be read: {error}") from error


def _look_up(target: Target, *, flags: int) -> list[str]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def _check(target: Target, addresses: Sequence[str], *, allows_loopback: bool) -> None:
    """All of a name's addresses must be fine: one that mixes inside and outside is up to something."""
    if allows_loopback and all(is_loopback(address) for address in addresses):
        return
    if not all(is_public(address) for address in addresses):
        # The address itself stays untold: it would map the inside for whoever asks.
        raise TargetRefused(f"the host {target.host} is not on the public internet; give a public HTTPS URL")
    if not target.is_tls:
        raise _not_https()


def _not_https() -> TargetRefused:
    return TargetRefused("the URL is not https; deliveries are sent by HTTPS alone: https://host/path")
