"""What is written down of a request: one line, one count, and nothing that its client wrote."""

from dataclasses import dataclass

import anyio
import httpx2
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.request_log import CLIENT_GONE, RequestLog
from service.telemetry.metrics import Metrics
from tests.exposition import exposed


@dataclass(frozen=True, slots=True)
class Account:
    method: str
    route: str
    status: int


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def app(metrics: Metrics) -> FastAPI:
    app, v1, jobs = FastAPI(), APIRouter(prefix="/v1"), APIRouter(prefix="/jobs")

    @jobs.get("/{job_id}/events")
    def events(job_id: str) -> str:
        return job_id

    @jobs.get("/models/{model:path}")
    def model(model: str) -> str:
        return model

    v1.include_router(jobs)
    app.include_router(v1)
    app.add_middleware(RequestLog, metrics=metrics)
    return app


def account_of(app: FastAPI, method: str, path: str) -> Account:
    async def ask() -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://dpo") as client:
            await client.request(method, path)

    with structlog.testing.capture_logs() as lines:
        anyio.run(ask)
    [line] = lines
    assert line["event"] == "request_answered"
    assert line["ms"] >= 0
    return Account(line["method"], line["route"], line["status"])


@pytest.mark.parametrize(
    ("method", "path", "account"),
    [
        ("GET", "/v1/jobs/secret/events?limit=secret", Account("GET", "/v1/jobs/{job_id}/events", 200)),
        ("GET", "/v1/jobs/{job_id}/events", Account("GET", "/v1/jobs/{job_id}/events", 200)),
        ("GET", "/v1/jobs/s%C3%A9cret/events", Account("GET", "/v1/jobs/{job_id}/events", 200)),
        ("GET", "/v1/jobs/models/a/b", Account("GET", "/v1/jobs/models/{model}", 200)),
        ("PUT", "/v1/jobs/secret/events", Account("PUT", "/v1/jobs/{job_id}/events", 405)),
        ("SECRET", "/v1/jobs/secret/events", Account("other", "/v1/jobs/{job_id}/events", 405)),
        ("GET", "/secret", Account("GET", "unknown", 404)),
        ("GET", "/v1/jobs/a/b/c/events", Account("GET", "unknown", 404)),
        ("GET", "/openapi.json", Account("GET", "/openapi.json", 200)),
    ],
)
def test_a_request_is_told_by_its_routes_template(
    app: FastAPI, metrics: Metrics, method: str, path: str, account: Account
) -> None:
    assert account_of(app, method, path) == account
    told = exposed(metrics.registry)
    labels = {"method": account.method, "route": account.route}
    assert told.value("dpo_http_requests_total", status=str(account.status), **labels) == 1
    assert told.value("dpo_http_request_seconds_count", **labels) == 1
    assert "secret" not in told.text.lower()


@pytest.mark.parametrize("error", [ClientDisconnect, RuntimeError])
def test_a_request_that_is_never_answered_is_told_too(metrics: Metrics, error: type[Exception]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    async def nothing(*_: object) -> dict[str, str]:
        return {}

    scope = {"type": "http", "method": "GET", "path": "/"}
    with structlog.testing.capture_logs(), pytest.raises(error):
        anyio.run(RequestLog(app, metrics), scope, nothing, nothing)
    told = exposed(metrics.registry)
    assert told.value("dpo_http_requests_total", method="GET", route="unknown", status=str(CLIENT_GONE)) == 1
