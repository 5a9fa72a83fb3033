"""Rows of endpoints and deliveries as the wire shows them."""

from typing import cast

from schemas.webhooks import DeliveryAttempt, DeliveryStatus, WebhookDelivery, WebhookEndpoint, WebhookEvent
from service.clock import unix_seconds
from service.db.tables import WebhookDeliveryRow, WebhookEndpointRow
from service.webhooks.signing import WebhookSigner


def present_endpoint(row: WebhookEndpointRow, *, signer: WebhookSigner) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=row.id,
        object="webhook_endpoint",
        created_at=unix_seconds(row.created_at),
        event_types=row.event_types,
        name=row.name,
        signing_secret_hint=signer.hint(row.id, row.secret_seed),
        updated_at=unix_seconds(row.updated_at),
        url=row.url,
    )


def present_delivery(row: WebhookDeliveryRow) -> WebhookDelivery:
    return WebhookDelivery(
        id=row.id,
        object="webhook_delivery",
        webhook_endpoint_id=row.endpoint_id,
        event=WebhookEvent.model_validate(row.event),
        status=cast(DeliveryStatus, row.status),
        attempts=row.attempts,
        last_attempt=_present_attempt(row),
        next_attempt_at=None if row.next_attempt_at is None else unix_seconds(row.next_attempt_at),
    )


def _present_attempt(row: WebhookDeliveryRow) -> DeliveryAttempt | None:
    if row.last_attempt_at is None:
        return None
    return DeliveryAttempt(at=unix_seconds(row.last_attempt_at), status_code=row.last_status_code, error=row.last_error)
