"""Every metric that a process keeps of itself; what the database knows is asked at each scrape (`queue_gauges`).

Labels hold what we name ourselves, statuses, operations and route templates, never what a user wrote.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TICK_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
INGEST_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
RUN_BUCKETS_S = (10, 30, 60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 259_200)


class Metrics:
    """One process's metrics on a registry of their own, so that two of them in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._add_jobs()
        self._add_outside()
        self._add_http()

    def _add_jobs(self) -> None:
        self.job_transitions = Counter(
            "dpo_job_transitions", "Jobs that changed status, committed.", ("from", "to"), registry=self.registry
        )
        self.run_seconds = Histogram(
            "dpo_run_seconds",
            "Runs that ended, from submission to the end of their processes.",
            ("outcome",),
            buckets=RUN_BUCKETS_S,
            registry=self.registry,
        )
        self.ingest_lag_seconds = Histogram(
            "dpo_ingest_lag_seconds",
            "Time from a run's event to its row in the database.",
            buckets=INGEST_BUCKETS_S,
            registry=self.registry,
        )
        self.dispatcher_tick_seconds = Histogram(
            "dpo_dispatcher_tick_seconds",
            "Rounds of this dispatcher over its jobs and the queue.",
            buckets=TICK_BUCKETS_S,
            registry=self.registry,
        )
        self.dispatcher_leases = Gauge(
            "dpo_dispatcher_leases", "Jobs that this dispatcher holds, when it last renewed.", registry=self.registry
        )

    def _add_outside(self) -> None:
        self.store_errors = Counter(
            "dpo_store_errors", "Calls that the object store failed.", ("operation",), registry=self.registry
        )
        self.cluster_errors = Counter(
            "dpo_cluster_errors", "Calls that the cluster failed.", ("operation",), registry=self.registry
        )
        self.webhook_deliveries = Counter(
            "dpo_webhook_deliveries", "Attempts to deliver a webhook.", ("outcome",), registry=self.registry
        )

    def _add_http(self) -> None:
        self.http_requests = Counter(
            "dpo_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.http_request_seconds = Histogram(
            "dpo_http_request_seconds",
            "Requests, until the last byte of their answer.",
            ("method", "route"),
            buckets=REQUEST_BUCKETS_S,
            registry=self.registry,
        )


def start_at_zero(metric: Counter | Histogram, labels: Iterable[Mapping[str, str]]) -> None:
    """Show these before anything happened: `increase` over a series that begins with its first event sees none."""
    for each in labels:
        metric.labels(**each)
