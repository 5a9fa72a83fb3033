"""A dispatcher as the settings ask for it, and what runs beside it: webhooks are sent, what has expired is swept."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from schemas.ids import DispatcherId
from service.backends.backend import Backend
from service.clock import utc_now
from service.db.engine import Database
from service.dispatcher.context import DispatchContext
from service.dispatcher.loop import Dispatcher
from service.dispatcher.polls import BUCKET_POLL_S, FOLDER_POLL_S, RunPolls
from service.dispatcher.validations import Validations
from service.files.validation_process import validate_in_process
from service.organization.metering import Meter
from service.registry import Registry
from service.retention.sweeper import Sweeper
from service.serve.background import in_background
from service.serve.observation import Observation
from service.settings import Settings
from service.storage.object_store import ObjectStore
from service.webhooks.post import WebhookPoster
from service.webhooks.sender import WebhookSender
from service.webhooks.signing import WebhookSigner


def build_dispatcher(
    settings: Settings,
    *,
    database: Database,
    store: ObjectStore,
    registry: Registry,
    backend: Backend,
    dispatcher_id: DispatcherId,
    observation: Observation,
) -> Dispatcher:
    context = DispatchContext(
        database=database,
        store=store,
        validate_file=partial(
            validate_in_process, settings.resolved_storage_url, s3_endpoint_url=settings.s3_endpoint_url
        ),
        backend=observation.backend(backend),
        registry=registry,
        clock=utc_now,
        max_attempts=settings.max_attempts,
        dispatcher_id=dispatcher_id,
        lease_s=settings.lease_s,
        metrics=observation.metrics,
        tracer=observation.tracer,
        polls=RunPolls(_poll_s(settings)),
    )
    return Dispatcher(context, Validations(context))


def _poll_s(settings: Settings) -> float:
    if settings.poll_s is not None:
        return settings.poll_s
    return BUCKET_POLL_S if settings.resolved_storage_url.startswith("s3://") else FOLDER_POLL_S


@contextmanager
def running(dispatcher: Dispatcher) -> Iterator[None]:
    """Run it on a thread of its own; at the end of the block it finishes the step at hand."""
    thread = threading.Thread(target=dispatcher.run, name="dispatcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        dispatcher.stop()
        thread.join()


@contextmanager
def chores(database: Database, store: ObjectStore, signer: WebhookSigner, poster: WebhookPoster) -> Iterator[None]:
    """Any number of processes may do them beside each other."""
    with (
        in_background("webhooks", WebhookSender(database, signer, poster, utc_now).run),
        in_background("metering", Meter(database, utc_now).run),
        in_background("retention", Sweeper(database, store, utc_now).run),
    ):
        yield
