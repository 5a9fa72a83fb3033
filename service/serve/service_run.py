"""The whole service in one process: everything is opened in order, and closed in the reverse of it.

Ctrl-C and SIGTERM both arrive as KeyboardInterrupt; the second one while closing changes nothing.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import uvicorn
from fastapi import FastAPI

from schemas.ids import DispatcherId
from service.api.app import create_app
from service.backends.local_ray import LocalRayFailed
from service.clock import utc_now
from service.dispatcher.context import DispatchContext
from service.dispatcher.loop import Dispatcher
from service.dispatcher.validations import Validations
from service.files.validation_process import validate_in_process
from service.identifiers import new_dispatcher_id
from service.retention.sweeper import Sweeper
from service.serve.backends import OpenBackend, check_backend, open_backend
from service.serve.background import in_background
from service.serve.banner import render_banner
from service.serve.base_models import is_default_model_ready, load_registry, prepare_default_model
from service.serve.bootstrap import ensure_first_admin_key, ensure_first_key
from service.serve.data_folder import hold_data_folder
from service.serve.listening import listen, url_of
from service.serve.start_errors import StartError
from service.serve.stores import open_database, open_service_store
from service.serve.webhook_key import resolve_webhook_key
from service.settings import Settings
from service.webhooks.post import WebhookPoster
from service.webhooks.sender import WebhookSender
from service.webhooks.signing import WebhookSigner

EMBEDDED_DISPATCHER = DispatcherId("embedded")
OPEN_REQUESTS_GRACE_S = 3
"""How long a download may hold up the end."""


def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises: StartError."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _serve(settings)
    except KeyboardInterrupt:
        _tell("dpo-service has stopped; nothing is left running.")


def _serve(settings: Settings) -> None:
    data_dir = settings.resolved_data_dir
    failure = _Failure()
    with ExitStack() as stack:
        stack.enter_context(hold_data_folder(data_dir))
        listener = stack.enter_context(listen(settings.host, settings.port))
        registry = load_registry(data_dir, settings.models_file)
        database = stack.enter_context(open_database(settings.resolved_database_url))
        store = open_service_store(settings.resolved_storage_url, s3_endpoint_url=settings.s3_endpoint_url)
        stack.callback(_ignore_signals)  # what follows is closed first, and undisturbed
        backend = stack.enter_context(open_backend(settings, data_dir, on_failure=failure.note))
        stack.callback(_ignore_signals)
        if settings.models_file is None and not is_default_model_ready(data_dir):
            _tell("Preparing the default model, once …")
            prepare_default_model(data_dir)
        context = DispatchContext(
            database=database,
            store=store,
            validate_file=partial(
                validate_in_process, settings.resolved_storage_url, s3_endpoint_url=settings.s3_endpoint_url
            ),
            backend=backend.backend,
            registry=registry,
            clock=utc_now,
            max_attempts=settings.max_attempts,
            dispatcher_id=_dispatcher_id(settings),
        )
        signer = WebhookSigner(resolve_webhook_key(settings))
        poster = WebhookPoster(allows_loopback=settings.webhook_allow_loopback)
        stack.enter_context(in_background("webhooks", WebhookSender(database, signer, poster, utc_now).run))
        stack.enter_context(in_background("retention", Sweeper(database, store, utc_now).run))
        stack.enter_context(_dispatching(context, backend))
        stack.callback(_ignore_signals)
        readiness = {"cluster": partial(check_backend, backend.backend)}
        app = create_app(
            database=database, store=store, registry=registry, signer=signer, poster=poster, readiness=readiness
        )
        server = _server(app)
        failure.stop_on(server)
        given = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key else None
        if settings.bootstrap_admin_key is not None:
            ensure_first_admin_key(database, settings.bootstrap_admin_key.get_secret_value(), clock=utc_now)
        key = ensure_first_key(database, given=given, clock=utc_now)
        url = url_of(listener)
        _tell(render_banner(url=url, api_key=key, data_dir=data_dir, backend=backend.description, registry=registry))
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
def _dispatching(context: DispatchContext, backend: OpenBackend) -> Iterator[None]:
    """Run the dispatcher on a thread of its own; at the end, also end the runs that end with the service."""
    dispatcher = Dispatcher(context, Validations(context))
    thread = threading.Thread(target=dispatcher.run, name="dispatcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        dispatcher.stop()
        thread.join()
        backend.close()
        if backend.ends_runs:
            dispatcher.interrupt_runs()
        dispatcher.give_back()


def _dispatcher_id(settings: Settings) -> DispatcherId:
    """The one dispatcher of an embedded database keeps its id, and with it the leases from before a `kill -9`."""
    return EMBEDDED_DISPATCHER if settings.database_url is None else new_dispatcher_id()


def _server(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=OPEN_REQUESTS_GRACE_S,
        )
    )


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
