"""An event as the signed request that tells it."""

from dataclasses import dataclass
from datetime import datetime

from schemas.ids import DeliveryId
from schemas.webhooks import WebhookEvent
from service.clock import unix_seconds
from service.db.tables import WebhookEndpointRow
from service.webhooks.signing import WebhookSigner


@dataclass(frozen=True, slots=True)
class Message:
    url: str
    headers: dict[str, str]
    body: bytes


def build_message(
    endpoint: WebhookEndpointRow, delivery_id: DeliveryId, event: WebhookEvent, *, signer: WebhookSigner, now: datetime
) -> Message:
    """Sign with the endpoint's secret, and with the one before it for as long as that is kept.

    Raises: SigningKeyChanged.
    """
    body = event.model_dump_json().encode()
    signatures = signer.headers(
        endpoint.id, _active_seeds(endpoint, now=now), message_id=delivery_id, sent_at=unix_seconds(now), body=body
    )
    headers = {"content-type": "application/json", "user-agent": "dpo-service-webhooks/1", **signatures}
    return Message(endpoint.url, headers, body)


def _active_seeds(endpoint: WebhookEndpointRow, *, now: datetime) -> list[str]:
    until, previous = endpoint.previous_secret_until, endpoint.previous_secret_seed
    is_kept = previous is not None and until is not None and now < until
    return [endpoint.secret_seed, previous] if previous is not None and is_kept else [endpoint.secret_seed]
