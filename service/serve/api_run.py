"""The API alone: one of any number of replicas, stateless between requests."""

from contextlib import ExitStack

from service.api.app import create_app
from service.clock import utc_now
from service.serve.bootstrap import ensure_given_keys
from service.serve.exposure import refuse_exposed
from service.serve.http_server import http_server
from service.serve.listening import listen, url_of
from service.serve.metrics_endpoint import metrics_endpoint
from service.serve.observation import observing
from service.serve.prices import prices_of
from service.serve.shared_settings import load_shared
from service.serve.stores import open_current_database, open_service_store
from service.serve.terminal import interrupt_on_sigterm, tell
from service.settings import Settings
from service.webhooks.post import WebhookPoster


def run_api(settings: Settings) -> None:
    """Answer until told to stop. Raises: StartError."""
    interrupt_on_sigterm()
    try:
        _run(settings)
    except KeyboardInterrupt:
        tell("dpo-service api has stopped.")


def _run(settings: Settings) -> None:
    refuse_exposed(settings)
    shared = load_shared(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port))
        seen = stack.enter_context(observing())
        database = stack.enter_context(open_current_database(shared.database_url, tell=seen.observer()))
        stored = open_service_store(shared.storage_url, s3_endpoint_url=settings.s3_endpoint_url, database=database)
        stack.enter_context(metrics_endpoint(settings, seen.metrics, database))
        ensure_given_keys(database, settings, clock=utc_now)
        poster = WebhookPoster(allows_loopback=settings.webhook_allow_loopback)
        app = create_app(
            database=database,
            store=seen.store(stored),
            registry=shared.registry,
            signer=shared.signer,
            poster=poster,
            prices=prices_of(settings),
            metrics=seen.metrics,
            tracer_provider=seen.tracer_provider,
        )
        tell(f"dpo-service api is listening on {url_of(listener)}")
        http_server(app).run(sockets=[listener])
