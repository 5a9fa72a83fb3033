"""An error after the answer began cannot become a 500 any more: the connection must break."""

import anyio
import pytest
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.unhandled_errors import UnhandledErrors

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


def answer_of(app: ASGIApp) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with structlog.testing.capture_logs():
        anyio.run(UnhandledErrors(app), dict(SCOPE), receive, send)
    return sent


def test_before_the_answer_it_is_a_500() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    assert answer_of(app)[0]["status"] == 500


def test_after_the_answer_began_it_is_raised_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half a body")

    with pytest.raises(RuntimeError, match="half a body"):
        answer_of(app)


def test_a_client_that_went_away_gets_no_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    assert answer_of(app) == []
