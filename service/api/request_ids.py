"""`x-request-id` on every response: the client's own when it is a plausible one, else a new one.

Pure ASGI: a streamed body passes through untouched.
"""

import re

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.identifiers import new_request_id

HEADER = "x-request-id"
BOUND_LATER = ("project_id",)
"""By those within, in the request's own context, for all its log lines that follow."""
PLAUSIBLE = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestIds:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if PLAUSIBLE.fullmatch(given) else new_request_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                structlog.contextvars.unbind_contextvars(*BOUND_LATER)
