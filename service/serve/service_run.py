"""The whole service in one process: everything is opened in order, and closed in the reverse of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import uvicorn

from schemas.ids import DispatcherId
from service.api.app import create_app
from service.backends.local_ray import LocalRayFailed
from service.clock import utc_now
from service.dispatcher.loop import Dispatcher
from service.identifiers import new_dispatcher_id
from service.serve.backends import OpenBackend, check_backend, open_backend
from service.serve.banner import render_banner
from service.serve.base_models import is_default_model_ready, load_registry, prepare_default_model
from service.serve.bootstrap import ensure_first_keys
from service.serve.data_folder import hold_data_folder
from service.serve.dispatching import build_dispatcher, chores, running
from service.serve.exposure import refuse_exposed
from service.serve.http_server import http_server
from service.serve.listening import listen, url_of
from service.serve.metrics_endpoint import metrics_endpoint
from service.serve.observation import observing
from service.serve.prices import prices_of
from service.serve.start_errors import StartError
from service.serve.stores import open_database, open_service_store
from service.serve.terminal import ignore_signals, interrupt_on_sigterm, tell
from service.serve.webhook_key import resolve_webhook_key
from service.settings import Settings
from service.webhooks.post import WebhookPoster
from service.webhooks.signing import WebhookSigner

EMBEDDED_DISPATCHER = DispatcherId("embedded")


def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises: StartError."""
    interrupt_on_sigterm()
    try:
        _serve(settings)
    except KeyboardInterrupt:
        tell("dpo-service has stopped; nothing is left running.")


def _serve(settings: Settings) -> None:
    refuse_exposed(settings)
    data_dir = settings.resolved_data_dir
    failure = _Failure()
    with ExitStack() as stack:
        stack.enter_context(hold_data_folder(data_dir))
        listener = stack.enter_context(listen(settings.host, settings.port))
        registry = load_registry(data_dir, settings.models_file)
        seen = stack.enter_context(observing())
        database = stack.enter_context(open_database(settings.resolved_database_url, tell=seen.observer()))
        stored = open_service_store(
            settings.resolved_storage_url, s3_endpoint_url=settings.s3_endpoint_url, database=database
        )
        store = seen.store(stored)
        stack.enter_context(metrics_endpoint(settings, seen.metrics, database))
        stack.callback(ignore_signals)  # what follows is closed first, and undisturbed
        backend = stack.enter_context(open_backend(settings, data_dir, on_failure=failure.note))
        stack.callback(ignore_signals)
        if settings.models_file is None and not is_default_model_ready(data_dir):
            tell("Preparing the default model, once; it takes a minute …")
            prepare_default_model(data_dir)
        dispatcher = build_dispatcher(
            settings,
            database=database,
            store=store,
            registry=registry,
            backend=backend.backend,
            dispatcher_id=_dispatcher_id(settings),
            observation=seen,
        )
        signer = WebhookSigner(resolve_webhook_key(settings))
        poster = WebhookPoster(allows_loopback=settings.webhook_allow_loopback)
        stack.enter_context(chores(database, store, signer, poster))
        stack.enter_context(_dispatching(dispatcher, backend))
        stack.callback(ignore_signals)
        readiness = {"cluster": partial(check_backend, backend.backend)}
        app = create_app(
            database=database,
            store=store,
            registry=registry,
            signer=signer,
            poster=poster,
            readiness=readiness,
            prices=prices_of(settings),
            metrics=seen.metrics,
            tracer_provider=seen.tracer_provider,
        )
        server = http_server(app)
        failure.stop_on(server)
        key = ensure_first_keys(database, settings, clock=utc_now)
        url = url_of(listener)
        tell(render_banner(url=url, api_key=key, data_dir=data_dir, backend=backend.description, registry=registry))
        server.run(sockets=[listener])
    failure.raise_if_noted()


class _Failure:
    """What went wrong on another thread, after the start: ends the server."""

    def __init__(self) -> None:
        self._error: LocalRayFailed | None = None
        self._server: uvicorn.Server | None = None

    def note(self, error: LocalRayFailed) -> None:
        self._error = error
        if self._server is not None:
            self._server.should_exit = True

    def stop_on(self, server: uvicorn.Server) -> None:
        self._server = server
        self.raise_if_noted()

    def raise_if_noted(self) -> None:
        if self._error is not None:
            raise StartError(str(self._error)) from self._error


@contextmanager
def _dispatching(dispatcher: Dispatcher, backend: OpenBackend) -> Iterator[None]:
    """Run the dispatcher; at the end, also end the runs that end with the service."""
    try:
        with running(dispatcher):
            yield
    finally:
        backend.close()
        if backend.ends_runs:
            dispatcher.interrupt_runs()
        dispatcher.give_back()


def _dispatcher_id(settings: Settings) -> DispatcherId:
    """The one dispatcher of an embedded database keeps its id, and with it the leases from before a `kill -9`."""
    return EMBEDDED_DISPATCHER if settings.database_url is None else new_dispatcher_id()
