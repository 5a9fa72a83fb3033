"""`/metrics` for Prometheus, on a port of its own: it has no key, so the public one never shows it."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from service.clock import utc_now
from service.db.engine import Database
from service.serve.queue_gauges import QueueGauges
from service.serve.start_errors import StartError
from service.serve.terminal import tell
from service.settings import Settings
from service.telemetry.metrics import Metrics


@contextmanager
def metrics_endpoint(settings: Settings, metrics: Metrics, database: Database) -> Iterator[None]:
    """Answer scrapes on a thread until the block ends, if the settings name a port. Raises: StartError."""
    if settings.metrics_port is None:
        yield
        return
    metrics.registry.register(QueueGauges(database, utc_now))
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, metrics.registry)
    except OSError as error:
        raise StartError(
            f"Metrics cannot be told at {settings.metrics_host}:{settings.metrics_port} ({error.strerror or error}); "
            "choose others in DPO_METRICS_HOST and DPO_METRICS_PORT (0: any free one)."
        ) from error
    try:
        tell(f"Metrics are at http://{settings.metrics_host}:{server.server_port}/metrics")
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
