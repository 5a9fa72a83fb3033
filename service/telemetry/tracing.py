"""Traces: off unless OpenTelemetry's own variables name a receiver; a job keeps the span of the request that made it.

Providers are passed on and never made global, so a library of ours or of others traces nothing behind our back.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SERVICE_NAME = "dpo-service"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
HEADER = "traceparent"


class TracingUnusable(RuntimeError):
    """What is asked for cannot be had; the message says why and what to do."""


@contextmanager
def open_tracer_provider() -> Iterator[TracerProvider]:
    """Yield one that exports over OTLP, or one that does nothing; the last spans leave at the end.

    Raises: TracingUnusable.
    """
    if not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        yield NoOpTracerProvider()
        return
    _check_protocol()
    try:
        from service.telemetry.otlp import exporting_provider  # the SDK is an extra, and a third of a second
    except ImportError as error:
        raise TracingUnusable(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set and {error.name} is not installed; "
            "pip install 'dpo-service[otel]', or unset it."
        ) from error
    with exporting_provider(os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME) as provider:
        yield provider


def current_traceparent() -> str | None:
    """The span that is at work here, as W3C's header; None when nothing is traced."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(HEADER)


def context_of(traceparent: str | None) -> Context:
    """Where spans under that header belong; without one, to no trace yet."""
    carrier = {} if traceparent is None else {HEADER: traceparent}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _check_protocol() -> None:
    name, protocol = next(((name, os.environ[name]) for name in PROTOCOL_VARIABLES if os.environ.get(name)), ("", ""))
    if protocol not in ("", PROTOCOL):
        raise TracingUnusable(f"{name} is {protocol!r}, and traces leave as {PROTOCOL} alone; give that, or unset it.")
