"""A dispatcher alone: one of any number. Its runs outlive it, and another dispatcher goes on with them."""

import threading
from contextlib import ExitStack

from service.identifiers import new_dispatcher_id
from service.serve.backends import open_shared_backend
from service.serve.dispatching import build_dispatcher, chores, running
from service.serve.exposure import refuse_exposed_elsewhere
from service.serve.metrics_endpoint import metrics_endpoint
from service.serve.observation import observing
from service.serve.shared_settings import load_shared
from service.serve.stores import open_current_database, open_service_store
from service.serve.terminal import ignore_signals, interrupt_on_sigterm, tell
from service.settings import Settings
from service.webhooks.post import WebhookPoster


def run_dispatcher(settings: Settings) -> None:
    """Dispatch until told to stop; then finish the step at hand and give the leases back. Raises: StartError."""
    interrupt_on_sigterm()
    try:
        _run(settings)
    except KeyboardInterrupt:
        tell("dpo-service dispatcher has stopped; its runs go on, and other dispatchers with them.")


def _run(settings: Settings) -> None:
    refuse_exposed_elsewhere(settings)
    shared = load_shared(settings)
    backend = open_shared_backend(settings)
    with ExitStack() as stack:
        seen = stack.enter_context(observing())
        database = stack.enter_context(open_current_database(shared.database_url, tell=seen.observer()))
        stored = open_service_store(shared.storage_url, s3_endpoint_url=settings.s3_endpoint_url, database=database)
        store = seen.store(stored)
        stack.enter_context(metrics_endpoint(settings, seen.metrics, database))
        dispatcher_id = new_dispatcher_id()
        dispatcher = build_dispatcher(
            settings,
            database=database,
            store=store,
            registry=shared.registry,
            backend=backend.backend,
            dispatcher_id=dispatcher_id,
            observation=seen,
        )
        poster = WebhookPoster(allows_loopback=settings.webhook_allow_loopback)
        stack.enter_context(chores(database, store, shared.signer, poster))
        stack.callback(dispatcher.give_back)
        stack.enter_context(running(dispatcher))
        stack.callback(ignore_signals)
        tell(f"dpo-service dispatcher {dispatcher_id} runs jobs on {backend.description}")
        threading.Event().wait()
