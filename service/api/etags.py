"""Cheap polling: a client that has the newest state gets an empty 304, others what was told before as it was."""

from collections import OrderedDict
from typing import Protocol

from fastapi import Request, Response

from schemas.base import Response as WireObject

KEPT = 1_000
"""Bodies of two kilobytes or so."""
MEDIA_TYPE = "application/json"


class Tagged(Protocol):
    @property
    def etag(self) -> str: ...

    @property
    def wire_object(self) -> WireObject: ...


class ShownObjects:
    """The last bodies by their ETag, which names the object and its version: under it nothing else is ever told.

    Of one event loop.
    """

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()

    def answer(self, request: Request, etag: str) -> Response | None:
        """None: the client has another version, or none, and this one is not kept here."""
        if is_known(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=_headers(etag))
        body = self._bodies.get(etag)
        if body is None:
            return None
        self._bodies.move_to_end(etag)
        return _response(body, etag)

    def show(self, found: Tagged) -> Response:
        """Tell what was loaded, and keep it."""
        body = found.wire_object.model_dump_json().encode()
        self._bodies[found.etag] = body
        if len(self._bodies) > KEPT:
            self._bodies.popitem(last=False)
        return _response(body, found.etag)


def is_known(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, 13.1.2: compared weakly, any of a list, or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or tags == ["*"]


def _response(body: bytes, etag: str) -> Response:
    return Response(body, media_type=MEDIA_TYPE, headers=_headers(etag))


def _headers(etag: str) -> dict[str, str]:
    return {"etag": etag, "cache-control": "no-cache"}
