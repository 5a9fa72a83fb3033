"""What an operator sees of the dispatcher's work: lines with ids, spans of the job's trace, and how runs ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import LogCapture

from schemas.ids import JobId
from schemas.run_layout import SPEC
from schemas.run_spec import RunSpec
from service.backends.backend import BackendUnavailable, RunRequest
from service.db.tables import JobRow
from service.dispatcher.leases import renew_leases
from service.jobs.lifecycle import ALLOWED
from service.telemetry.metrics import Metrics
from service.telemetry.observing import Observer
from service.telemetry.tracing import current_traceparent
from tests.exposition import Exposition, exposed, labelled
from tests.unit.service.dispatcher.scripted_backend import Script, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import whole_run
from tests.unit.service.dispatcher.test_lost_runs import lost_at_first
from tests.unit.service.dispatcher.test_pauses import long_at_first, stop_after_step_3
from tests.unit.service.dispatcher.world import World, open_world, with_parts

pytestmark = pytest.mark.slow

EVENTS_OF_WHOLE_RUN = 9


class Seen:
    """A world that is watched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = Metrics()
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = self.provider.get_tracer("test")

    @contextmanager
    def world(self, script: Script, on_stop: Script = lambda _: []) -> Iterator[World]:
        observer = Observer(self.metrics, transitions=ALLOWED, tracer=self.tracer)
        backend = ScriptedBackend(script, on_stop=on_stop)
        with open_world(self.folder, backend, tell=observer) as world:
            world.context = with_parts(world.context, metrics=self.metrics, tracer=self.tracer)
            world.restart()
            yield world

    def told(self) -> Exposition:
        return exposed(self.metrics.registry)

    def span(self, name: str) -> ReadableSpan:
        return next(span for span in self.spans.get_finished_spans() if span.name == name)


class ShyBackend(ScriptedBackend):
    """Takes no run at first asking."""

    def submit(self, request: RunRequest) -> None:
        self.submissions[request.run_id] += 1
        if self.submissions[request.run_id] == 1:
            raise BackendUnavailable("secret")
        super().submit(request)


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    seen = Seen(tmp_path)
    yield seen
    seen.provider.shutdown()


def endings(seen: Seen) -> dict[str, float]:
    return {dict(labels)["outcome"]: count for labels, count in seen.told().told("dpo_run_seconds_count").items()}


def test_the_steps_of_a_job_join_the_trace_of_the_request_that_made_it(seen: Seen) -> None:
    with seen.world(whole_run) as world:
        with seen.tracer.start_as_current_span("POST /v1/fine_tuning/jobs") as request:
            traceparent = current_traceparent()
            job_id = world.submit()
        assert world.tick_until_ended(job_id).status == "succeeded"
        with world.context.database.read() as session:
            assert session.get_one(JobRow, job_id).traceparent == traceparent
        spec = RunSpec.model_validate_json(world.context.store.read(f"runs/{job_id}/{job_id}-1/{SPEC}"))
    assert spec.traceparent == traceparent is not None
    steps = [span for span in seen.spans.get_finished_spans() if span.name != "POST /v1/fine_tuning/jobs"]
    assert {span.name for span in steps} == {"validate", "launch", "ingest", "settle", "run"}
    for span in steps:
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (
            request.get_span_context().trace_id,
            request.get_span_context().span_id,
        )
        assert span.attributes is not None
        assert span.attributes["dpo.job_id"] == job_id
        assert span.attributes.get("dpo.run_id") == (None if span.name == "validate" else f"{job_id}-1")
    run = seen.span("run")
    assert run.start_time is not None
    assert run.end_time is not None
    seconds = (run.end_time - run.start_time) / 1e9
    assert seconds == pytest.approx(seen.told().value("dpo_run_seconds_sum", outcome="succeeded"))


def test_a_failed_step_is_told_by_its_type_alone(seen: Seen) -> None:
    with seen.world(whole_run) as world:
        world.restart(with_parts(world.context, backend=ShyBackend(whole_run)))
        world.tick_until_ended(world.submit())
    spans = seen.spans.get_finished_spans()
    told = [(span.name, span.attributes["error.type"]) for span in spans if "error.type" in (span.attributes or {})]
    assert told == [("launch", "BackendUnavailable")]
    assert not any(span.events or span.status.description for span in spans)


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        (whole_run, {"succeeded": 1.0}),
        (lost_at_first, {"lost": 1.0, "succeeded": 1.0}),
    ],
    ids=["succeeds", "is lost once"],
)
def test_runs_are_told_by_how_they_ended(seen: Seen, script: Script, ended: dict[str, float]) -> None:
    with seen.world(script) as world:
        world.tick_until_ended(world.submit())
    assert endings(seen) == ended
    moved = {(dict(labels)["from"], dict(labels)["to"]) for labels in seen.told().told("dpo_job_transitions_total")}
    assert moved == {
        ("new", "validating_files"),
        ("validating_files", "queued"),
        ("queued", "running"),
        ("running", "succeeded"),
    }


def test_a_paused_run_is_told_as_stopped_and_a_cancelled_one_as_that(seen: Seen) -> None:
    def pause_once(world: World, job_id: JobId) -> None:
        if world.steps(job_id) and not paused:
            paused.append(world.pause(job_id).status)
        elif world.job(job_id).status == "paused" and not world.open_runs():
            world.resume(job_id)

    paused: list[str] = []
    with seen.world(long_at_first, on_stop=stop_after_step_3) as world:
        assert world.tick_until_ended(world.submit(), user=pause_once).status == "succeeded"
        cancelled = world.submit()
        world.tick(times=3)
        world.cancel(cancelled)
        world.tick_until_ended(cancelled)
    assert endings(seen) == {"stopped": 1.0, "succeeded": 1.0, "cancelled": 1.0}
    transitions = seen.told().told("dpo_job_transitions_total")
    assert transitions[labelled(**{"from": "running", "to": "paused"})] == 1
    assert transitions[labelled(**{"from": "paused", "to": "queued"})] == 1


def test_every_event_is_counted_with_its_lag(seen: Seen) -> None:
    with seen.world(whole_run) as world:
        world.tick_until_ended(world.submit())
    told = seen.told()
    assert told.value("dpo_ingest_lag_seconds_count") == EVENTS_OF_WHOLE_RUN
    assert told.value("dpo_dispatcher_tick_seconds_count") > 3


def test_lines_within_a_step_name_job_and_run(seen: Seen) -> None:
    lines = LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, lines])
    try:
        with seen.world(whole_run) as world:
            job_id = world.submit()
            world.tick_until_ended(job_id)
    finally:
        structlog.configure(processors=before)
    told = {line["event"]: line for line in lines.entries}
    assert {"job_created", "job_moved", "run_launched", "run_ended"} <= set(told)
    assert all(line["job_id"] == job_id for line in told.values())
    assert told["run_launched"]["run_id"] == told["run_ended"]["run_id"] == f"{job_id}-1"


def test_leases_are_told_and_given_back(seen: Seen) -> None:
    with seen.world(long_at_first) as world:
        job_id = world.submit()
        world.tick(times=2)
        assert world.attempt(job_id) == 1
        renew_leases(world.context)
        assert seen.told().value("dpo_dispatcher_leases") == 1
        world.dispatcher.give_back()
        assert seen.told().value("dpo_dispatcher_leases") == 0
