"""The HTTP API as an ASGI app: parts in, routes out, no global state.

What comes first from outside in: the trace, the request id, the log of requests, the last resort for errors, routing,
the key, and only then the body.
"""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from schemas.files import MAX_FILE_BYTES
from service.api import (
    admin_api_keys,
    audit_logs,
    files,
    fine_tuning_jobs,
    health,
    models,
    organization_projects,
    organization_usage,
    rate_limits,
    service_accounts,
    uploads,
    webhook_endpoints,
)
from service.api.dependencies import Parts, refuse_nul
from service.api.error_rendering import install_error_handlers
from service.api.lookups import Lookups
from service.api.openapi import install_openapi
from service.api.readiness import Readiness, ReadinessCheck
from service.api.request_ids import RequestIds
from service.api.request_log import RequestLog
from service.api.unhandled_errors import UnhandledErrors
from service.clock import Clock, utc_now
from service.db.engine import Database
from service.organization.costs import Prices
from service.registry import Registry
from service.storage.object_store import ObjectStore
from service.telemetry.metrics import Metrics
from service.webhooks.endpoints import Webhooks
from service.webhooks.post import WebhookPoster
from service.webhooks.signing import WebhookSigner

FREE = Prices()
RESOURCES = (
    fine_tuning_jobs,  # first, for its polls: a request is laid against one route after the other
    files,
    uploads,
    models,
    webhook_endpoints,
    organization_projects,
    service_accounts,
    rate_limits,
    admin_api_keys,
    audit_logs,
    organization_usage,
)


def create_app(
    *,
    database: Database,
    store: ObjectStore,
    registry: Registry,
    signer: WebhookSigner,
    poster: WebhookPoster,
    clock: Clock = utc_now,
    readiness: Mapping[str, ReadinessCheck] | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    prices: Prices = FREE,
    metrics: Metrics | None = None,
    tracer_provider: TracerProvider | None = None,
) -> FastAPI:
    """`readiness` adds checks of what the caller runs beside the API, by name."""
    app = FastAPI(
        title="dpo-service",
        version=version("dpo-service"),
        redirect_slashes=False,
        telemetry=_telemetry(tracer_provider or NoOpTracerProvider()),
    )
    checks: dict[str, ReadinessCheck] = {
        "database": partial(health.check_database, database),
        "store": partial(health.check_store, store),
    }
    app.state.parts = Parts(
        database,
        store,
        registry,
        clock,
        Readiness(checks | dict(readiness or {})),
        max_file_bytes,
        Webhooks(database, signer, poster, clock),
        prices,
        Lookups(database, clock),
    )
    for resource in RESOURCES:
        app.include_router(resource.router, prefix="/v1", dependencies=[Depends(refuse_nul)])
    app.include_router(health.router)
    install_error_handlers(app)
    install_openapi(app)
    app.add_middleware(UnhandledErrors)
    app.add_middleware(RequestLog, metrics=metrics or Metrics())
    app.add_middleware(RequestIds)
    return app


def _telemetry(tracer_provider: TracerProvider) -> TelemetryConfig:
    """Spans of requests, as FastAPI makes them; its metrics and logs would tell a second time what ours tell."""
    return {
        "tracer_provider": tracer_provider,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
    }
