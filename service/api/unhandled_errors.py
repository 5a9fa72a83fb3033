"""The top of the API: what nobody foresaw becomes a 500 without a stack, and the stack goes to the log.

A middleware of ours, because Starlette's own handler of 500s lies outside all middleware: its answer would have no
request id.
"""

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.error_rendering import render_error
from service.api.request_log import route_of
from service.errors import InternalError

log = structlog.get_logger(__name__)


class UnhandledErrors:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_started = False

        async def note_start(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except ClientDisconnect:
            log.info("client_gone", method=scope["method"], route=route_of(scope))
        except Exception:
            log.exception("request_failed", method=scope["method"], route=route_of(scope))
            if is_started:
                raise  # the server cuts the connection: half a body must not look whole
            error = InternalError(
                "The service failed; try again, and tell the operator the x-request-id if it stays so"
            )
            await render_error(error)(scope, receive, send)
