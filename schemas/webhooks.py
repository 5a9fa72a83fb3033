"""`/v1/webhook_endpoints`: where the ends of jobs are told, signed as Standard Webhooks."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from schemas.base import Request, Response

WebhookEventType = Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
EVENT_TYPES: tuple[WebhookEventType, ...] = get_args(WebhookEventType)

DeliveryStatus = Literal["pending", "delivered", "failed"]

EventTypes = Annotated[list[WebhookEventType], Field(min_length=1, max_length=20)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Url = Annotated[str, Field(min_length=1, max_length=2048)]


class CreateWebhookEndpointRequest(Request):
    event_types: EventTypes
    name: Name
    url: Url


class UpdateWebhookEndpointRequest(Request):
    """What is absent or null stays as it is."""

    event_types: EventTypes | None = None
    name: Name | None = None
    url: Url | None = None


class RotateWebhookSecretRequest(Request):
    keep_old_secret_active_for_24_hours: bool = False
    """Deliveries then carry the signatures of both secrets for that long."""


class WebhookSampleRequest(Request):
    event_type: WebhookEventType


class WebhookEndpoint(Response):
    id: str
    object: Literal["webhook_endpoint"]
    created_at: int
    """Unix seconds."""
    event_types: list[str]
    name: str
    signing_secret_hint: str | None
    """The secret's last characters."""
    updated_at: int
    """Unix seconds of the last change of what is set here or of the secret."""
    url: str


class WebhookEndpointWithSecret(WebhookEndpoint):
    signing_secret: str
    """`whsec_…`, told when the endpoint is created and when the secret is rotated, and never again."""


class WebhookEndpointDeleted(Response):
    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: bool


class WebhookTestResult(Response):
    event_type: str
    object: Literal["webhook_endpoint.test"]
    status_code: int
    """What the endpoint answered."""
    success: Literal[True]
    """The request was answered, however."""
    webhook_endpoint_id: str


class WebhookEventTypeList(Response):
    object: Literal["list"]
    data: list[str]


class WebhookSubject(Response):
    id: str
    """The job's."""


class WebhookEvent(Response):
    """The body of a delivery."""

    id: str
    object: Literal["event"]
    created_at: int
    """Unix seconds of the job's end."""
    type: WebhookEventType
    data: WebhookSubject


class DeliveryAttempt(Response):
    at: int
    """Unix seconds."""
    status_code: int | None
    """Null: no answer came."""
    error: str | None
    """Why it does not count as delivered."""


class WebhookDelivery(Response):
    """One event on its way to one endpoint."""

    id: str
    """The `webhook-id` header, the same for every attempt."""
    object: Literal["webhook_delivery"]
    webhook_endpoint_id: str
    event: WebhookEvent
    status: DeliveryStatus
    attempts: int
    last_attempt: DeliveryAttempt | None
    next_attempt_at: int | None
    """Unix seconds; null once it is delivered, or given up after three days."""
