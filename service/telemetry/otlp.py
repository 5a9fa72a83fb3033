"""OpenTelemetry's SDK with the exporter over HTTP: loaded only where traces are asked for."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

HIDDEN = ("url.path", "url.query")
"""FastAPI's own attributes that hold what a client wrote; the route's template and our ids say enough."""
LAST_SPANS_S = 2.0
"""How long a receiver that is away may hold up the end."""


class ClientTextHider(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for name in HIDDEN:
            if name in (span.attributes or {}):
                span.set_attribute(name, "REDACTED")


@contextmanager
def exporting_provider(service_name: str) -> Iterator[TracerProvider]:
    """Endpoint, headers, sampler and limits are read from OpenTelemetry's variables by its SDK."""
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # it would tell of each of its retries
    exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}), shutdown_on_exit=False)
    provider.add_span_processor(ClientTextHider())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider
    finally:
        give_up = threading.Timer(LAST_SPANS_S, exporter.shutdown)
        give_up.start()
        provider.shutdown()
        give_up.cancel()
