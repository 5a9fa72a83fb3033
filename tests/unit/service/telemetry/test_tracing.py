"""Traces are off unless they are asked for, and what cannot be had is told."""

import sys
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, get_current_span

from service.telemetry.otlp import LAST_SPANS_S, ClientTextHider
from service.telemetry.tracing import (
    ENDPOINT_VARIABLES,
    PROTOCOL_VARIABLES,
    TracingUnusable,
    context_of,
    current_traceparent,
    open_tracer_provider,
)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _no_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINT_VARIABLES, *PROTOCOL_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_without_a_receiver_nothing_is_traced() -> None:
    with open_tracer_provider() as provider:
        assert isinstance(provider, NoOpTracerProvider)
        with provider.get_tracer("t").start_as_current_span("s"):
            assert current_traceparent() is None


@pytest.mark.parametrize("name", PROTOCOL_VARIABLES)
def test_a_protocol_that_cannot_be_spoken_is_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv(name, "grpc")
    with pytest.raises(TracingUnusable, match=f"{name} is 'grpc'.*http/protobuf alone"), open_tracer_provider():
        pass


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.delitem(sys.modules, "service.telemetry.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnusable, match=r"pip install 'dpo-service\[otel\]'"), open_tracer_provider():
        pass


def test_a_kept_header_is_the_parent_of_later_spans_and_nonsense_is_none() -> None:
    assert get_current_span(context_of(TRACEPARENT)).get_span_context().trace_id == int(TRACEPARENT[3:35], 16)
    for none in (None, "", "nonsense", "00-0-0-0"):
        assert not get_current_span(context_of(none)).get_span_context().is_valid


@pytest.mark.slow
def test_a_receiver_that_is_away_hardly_holds_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with open_tracer_provider() as provider:
        provider.get_tracer("t").start_span("s").end()
        began = time.monotonic()
    assert time.monotonic() - began < LAST_SPANS_S + 4


def test_what_a_client_wrote_is_in_no_span() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ClientTextHider())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    attributes = {"url.path": "/v1/secret", "url.query": "metadata[a]=secret", "http.request.method": "GET"}
    provider.get_tracer("t").start_span("s", attributes=attributes).end()
    [span] = exporter.get_finished_spans()
    assert span.attributes == {"url.path": "REDACTED", "url.query": "REDACTED", "http.request.method": "GET"}
    provider.shutdown()
