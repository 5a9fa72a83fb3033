"""Webhook endpoints as a project sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from schemas.ids import EndpointId, ProjectId
from schemas.pages import BoundedPage, Page, bounded_page
from schemas.webhooks import (
    CreateWebhookEndpointRequest,
    UpdateWebhookEndpointRequest,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointWithSecret,
    WebhookEventType,
    WebhookTestResult,
)
from service.clock import Clock
from service.cursors import check_cursor
from service.db.engine import Database
from service.db.once import OncePer, create_once
from service.db.projects import ProjectRepository
from service.db.tables import WebhookEndpointRow
from service.db.webhooks import DeliveryRepository, EndpointRepository
from service.errors import Conflict, InvalidRequest, NotFound
from service.identifiers import new_delivery_id, new_endpoint_id
from service.nearest import shown
from service.webhooks.messages import build_message
from service.webhooks.outbox import new_event
from service.webhooks.post import PostFailed, WebhookPoster
from service.webhooks.presentation import present_delivery, present_endpoint
from service.webhooks.signing import SigningKeyChanged, WebhookSigner
from service.webhooks.targets import TargetRefused, parse_target

MAX_ENDPOINTS = 20
"""Of a project: each end of a job is told to every one."""
OLD_SECRET_LIFETIME = timedelta(hours=24)
SAMPLE_JOB_ID = "ftjob-sample"
"""What a test delivery tells of; no job has it."""


class WebhookEndpointNotFound(NotFound):
    code = "webhook_endpoint_not_found"


class TooManyEndpoints(InvalidRequest):
    code = "too_many_webhook_endpoints"


class SecretLost(Conflict):
    """The service's webhook key has changed since the endpoint was made."""

    code = "signing_key_changed"


class InvalidUrl(InvalidRequest):
    code = "invalid_url"


class EndpointUnreachable(InvalidRequest):
    """A test delivery got no answer at all."""

    code = "webhook_endpoint_unreachable"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What the room works with."""

    database: Database
    signer: WebhookSigner
    poster: WebhookPoster
    clock: Clock


def create_endpoint(
    webhooks: Webhooks, project_id: ProjectId, request: CreateWebhookEndpointRequest, *, once_per: OncePer | None
) -> WebhookEndpointWithSecret:
    """Raises: InvalidUrl, TooManyEndpoints, IdempotencyKeyReused, SecretLost."""
    now = webhooks.clock()
    _check_url(webhooks, request.url)

    def create(session: Session) -> WebhookEndpoint:
        ProjectRepository(session).lock(project_id)  # two requests at once must not both take the last place
        endpoints = EndpointRepository(session)
        if endpoints.count(project_id) >= MAX_ENDPOINTS:
            raise TooManyEndpoints(f"The project has {MAX_ENDPOINTS} webhook endpoints; delete one first")
        row = WebhookEndpointRow(
            id=new_endpoint_id(),
            project_id=project_id,
            name=request.name,
            url=request.url,
            event_types=_each_once(request.event_types),
            secret_seed=webhooks.signer.new_seed(),
            previous_secret_seed=None,
            previous_secret_until=None,
            created_at=now,
            updated_at=now,
        )
        endpoints.add(row)
        return present_endpoint(row, signer=webhooks.signer)

    # The answer that is kept for repeats has no secret: it is derived again from what the row says now.
    answer = create_once(webhooks.database, once_per, create, answer_type=WebhookEndpoint, now=now)
    with webhooks.database.read() as session:
        return _with_secret(webhooks, _require_endpoint(session, project_id, answer.id))


def find_endpoint(webhooks: Webhooks, project_id: ProjectId, endpoint_id: str) -> WebhookEndpoint:
    """Raises: WebhookEndpointNotFound."""
    with webhooks.database.read() as session:
        return present_endpoint(_require_endpoint(session, project_id, endpoint_id), signer=webhooks.signer)


def list_endpoints(
    webhooks: Webhooks, project_id: ProjectId, *, after: str | None, limit: int
) -> BoundedPage[WebhookEndpoint]:
    """Newest first. Raises: InvalidRequest."""
    check_cursor(after, prefix="whe_", kind="a webhook endpoint")
    with webhooks.database.read() as session:
        rows = EndpointRepository(session).list_after(project_id, after=after, limit=limit + 1)
    return bounded_page([present_endpoint(row, signer=webhooks.signer) for row in rows], limit=limit)


def update_endpoint(
    webhooks: Webhooks, project_id: ProjectId, endpoint_id: str, request: UpdateWebhookEndpointRequest
) -> WebhookEndpoint:
    """What is not yet delivered goes to the new URL, too. Raises: WebhookEndpointNotFound, InvalidUrl."""
    if request.url is not None:
        _check_url(webhooks, request.url)

    def change(row: WebhookEndpointRow) -> None:
        before = (row.name, row.url, row.event_types)
        row.name = request.name or row.name
        row.url = request.url or row.url
        row.event_types = _each_once(request.event_types or row.event_types)
        if (row.name, row.url, row.event_types) != before:
            row.updated_at = webhooks.clock()

    return present_endpoint(_change(webhooks, project_id, endpoint_id, change), signer=webhooks.signer)


def rotate_secret(
    webhooks: Webhooks, project_id: ProjectId, endpoint_id: str, *, keeps_old: bool
) -> WebhookEndpointWithSecret:
    """Raises: WebhookEndpointNotFound."""
    now = webhooks.clock()

    def change(row: WebhookEndpointRow) -> None:
        # One of another key of the service's signs nothing any more, and would hold up the new one's deliveries.
        keeps = keeps_old and webhooks.signer.knows(row.secret_seed)
        row.previous_secret_seed = row.secret_seed if keeps else None
        row.previous_secret_until = now + OLD_SECRET_LIFETIME if keeps else None
        row.secret_seed = webhooks.signer.new_seed()
        row.updated_at = now

    return _with_secret(webhooks, _change(webhooks, project_id, endpoint_id, change))


def delete_endpoint(webhooks: Webhooks, project_id: ProjectId, endpoint_id: str) -> WebhookEndpointDeleted:
    """What was still to be delivered there goes with it. Raises: WebhookEndpointNotFound."""
    with webhooks.database.write() as session:
        row = _require_endpoint(session, project_id, endpoint_id, locked=True)
        EndpointRepository(session).delete(EndpointId(row.id))
    return WebhookEndpointDeleted(id=endpoint_id, object="webhook_endpoint.deleted", deleted=True)


def send_test(
    webhooks: Webhooks, project_id: ProjectId, endpoint_id: str, event_type: WebhookEventType
) -> WebhookTestResult:
    """Send a sample, once and now. Raises: WebhookEndpointNotFound, EndpointUnreachable."""
    with webhooks.database.read() as session:
        row = _require_endpoint(session, project_id, endpoint_id)
    now = webhooks.clock()
    event = new_event(event_type, SAMPLE_JOB_ID, now=now)
    try:
        message = build_message(row, new_delivery_id(), event, signer=webhooks.signer, now=now)
        status_code = webhooks.poster.post(message.url, headers=message.headers, body=message.body)
    except (PostFailed, SigningKeyChanged) as error:
        raise EndpointUnreachable(f"The test of {endpoint_id} failed: {error}", param="url") from error
    return WebhookTestResult(
        event_type=event_type,
        object="webhook_endpoint.test",
        status_code=status_code,
        success=True,
        webhook_endpoint_id=row.id,
    )


def list_deliveries(
    webhooks: Webhooks, project_id: ProjectId, endpoint_id: str, *, after: str | None, limit: int
) -> Page[WebhookDelivery]:
    """Newest first. Raises: WebhookEndpointNotFound, InvalidRequest."""
    check_cursor(after, prefix="wh_", kind="a delivery")
    with webhooks.database.read() as session:
        row = _require_endpoint(session, project_id, endpoint_id)
        rows = DeliveryRepository(session).list_after(EndpointId(row.id), after=after, limit=limit + 1)
    return Page(object="list", data=[present_delivery(row) for row in rows[:limit]], has_more=len(rows) > limit)


def _change(
    webhooks: Webhooks, project_id: ProjectId, endpoint_id: str, change: Callable[[WebhookEndpointRow], None]
) -> WebhookEndpointRow:
    with webhooks.database.write() as session:
        row = _require_endpoint(session, project_id, endpoint_id, locked=True)
        change(row)
        session.flush()
        return row


def _with_secret(webhooks: Webhooks, row: WebhookEndpointRow) -> WebhookEndpointWithSecret:
    shown_always = present_endpoint(row, signer=webhooks.signer)
    try:
        secret = webhooks.signer.secret(row.id, row.secret_seed)
    except SigningKeyChanged as error:
        raise SecretLost(
            f"The signing secret of {row.id} can no longer be told: {error} "
            f"(POST /v1/webhook_endpoints/{row.id}/rotate_secret)"
        ) from error
    return WebhookEndpointWithSecret(**shown_always.model_dump(), signing_secret=secret)


def _require_endpoint(
    session: Session, project_id: ProjectId, endpoint_id: str, *, locked: bool = False
) -> WebhookEndpointRow:
    row = EndpointRepository(session).find(project_id, endpoint_id, locked=locked)
    if row is None:
        raise WebhookEndpointNotFound(
            f"The webhook endpoint {shown(endpoint_id)} does not exist; GET /v1/webhook_endpoints lists those that do"
        )
    return row


def _check_url(webhooks: Webhooks, url: str) -> None:
    try:
        parse_target(url, allows_loopback=webhooks.poster.allows_loopback)
    except TargetRefused as error:
        raise InvalidUrl(f"The url {shown(url)} cannot be used: {error}", param="url") from error


def _each_once(event_types: list[WebhookEventType] | list[str]) -> list[str]:
    return list(dict.fromkeys(event_types))
