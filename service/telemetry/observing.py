"""What is made of a committed fact: a log line, a count, and of a run's end a span."""

from collections.abc import Mapping
from datetime import datetime
from typing import get_args

import structlog
from opentelemetry.trace import NoOpTracer, Tracer

from schemas.fine_tuning import JobStatus
from service.telemetry.facts import (
    DeliveryAttempted,
    DeliveryEnding,
    EventsIngested,
    Fact,
    JobMoved,
    RunEnded,
    RunEnding,
)
from service.telemetry.metrics import Metrics, start_at_zero
from service.telemetry.tracing import context_of

log = structlog.get_logger()

CREATED = "new"
"""The label of what a job was before it was one."""


class Observer:
    """`transitions` are those that may happen, by the status left."""

    def __init__(
        self, metrics: Metrics, *, transitions: Mapping[JobStatus, frozenset[JobStatus]], tracer: Tracer | None = None
    ) -> None:
        self._metrics = metrics
        self._tracer = tracer or NoOpTracer()
        moves = [(CREATED, "validating_files"), *((seen, to) for seen, tos in transitions.items() for to in tos)]
        start_at_zero(metrics.job_transitions, [{"from": seen, "to": to} for seen, to in moves])
        start_at_zero(metrics.run_seconds, [{"outcome": ending} for ending in get_args(RunEnding)])
        start_at_zero(metrics.webhook_deliveries, [{"outcome": ending} for ending in get_args(DeliveryEnding)])

    def __call__(self, fact: Fact) -> None:
        match fact:
            case JobMoved():
                self._job_moved(fact)
            case RunEnded():
                self._run_ended(fact)
            case EventsIngested(lags_s):
                for lag_s in lags_s:
                    self._metrics.ingest_lag_seconds.observe(lag_s)
            case DeliveryAttempted(ending):
                self._metrics.webhook_deliveries.labels(ending).inc()

    def _job_moved(self, fact: JobMoved) -> None:
        self._metrics.job_transitions.labels(fact.seen or CREATED, fact.to).inc()
        if fact.seen is None:
            log.info("job_created", job_id=fact.job_id, project_id=fact.project_id)
        else:
            moved = {"from": fact.seen, "to": fact.to}
            log.info("job_moved", job_id=fact.job_id, project_id=fact.project_id, **moved)

    def _run_ended(self, fact: RunEnded) -> None:
        seconds = max(0.0, (fact.ended_at - fact.began_at).total_seconds())
        self._metrics.run_seconds.labels(fact.ending).observe(seconds)
        ids = {"run_id": fact.run_id, "job_id": fact.job_id}
        log.info("run_ended", outcome=fact.ending, seconds=round(seconds, 3), **ids)
        attributes = {f"dpo.{name}": value for name, value in ids.items()} | {"dpo.outcome": fact.ending}
        span = self._tracer.start_span(
            "run", context=context_of(fact.traceparent), start_time=_nanoseconds(fact.began_at), attributes=attributes
        )
        span.end(_nanoseconds(max(fact.began_at, fact.ended_at)))


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
