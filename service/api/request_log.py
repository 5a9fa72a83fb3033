"""Each request's one line in the log, and its place in the metrics, once its last byte has left.

Both name the route's template and never the path, which a client writes as it likes.
"""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
UNKNOWN_ROUTE = "unknown"
CLIENT_GONE = 499
"""nginx's status of a request whose client did not wait for the answer; nothing was sent."""


class RequestLog:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), CLIENT_GONE

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            self._account(scope, status, seconds=time.perf_counter() - began)

    def _account(self, scope: Scope, status: int, *, seconds: float) -> None:
        route, method = route_of(scope), scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self._metrics.http_requests.labels(method, route, str(status)).inc()
        self._metrics.http_request_seconds.labels(method, route).observe(seconds)
        log.info("request_answered", method=method, route=route, status=status, ms=round(seconds * 1000, 1))


def route_of(scope: Scope) -> str:
    """The template of the route that took the request, after routing; `unknown` when none did."""
    route = scope.get("route")
    if route is None:
        # FastAPI's own pages, such as /openapi.json, are plain routes without a parameter in them.
        return str(scope["path"]) if "endpoint" in scope else UNKNOWN_ROUTE
    # The route knows its own router's prefix and not those that this one was included under: they are what is left of
    # the path before it.
    template: str = route.path_format
    path: str = scope["path"]
    filled = template.format(**scope.get("path_params", {}))
    return path.removesuffix(filled) + template if path.endswith(filled) else template
