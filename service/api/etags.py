"""Cheap polling: a client that has the newest state gets an empty 304."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from schemas.base import Response as WireObject


def answer_unless_known(request: Request, wire_object: WireObject, *, etag: str) -> Response:
    headers = {"etag": etag, "cache-control": "no-cache"}
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return JSONResponse(wire_object.model_dump(mode="json"), headers=headers)


def is_known(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, 13.1.2: compared weakly, any of a list, or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or tags == ["*"]
