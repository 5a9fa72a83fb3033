"""`/v1/webhook_endpoints` and `/v1/webhook_event_types`."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends

from schemas.pages import BoundedPage, Page
from schemas.webhooks import (
    EVENT_TYPES,
    CreateWebhookEndpointRequest,
    RotateWebhookSecretRequest,
    UpdateWebhookEndpointRequest,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointWithSecret,
    WebhookEventTypeList,
    WebhookSampleRequest,
    WebhookTestResult,
)
from service.api.auth import Project
from service.api.dependencies import App, Hooks
from service.api.idempotency import IdempotencyKey, once_per_body
from service.api.json_bodies import JsonBody
from service.api.openapi import json_body
from service.api.pages import PlainPage
from service.api.typed_bodies import body_as
from service.webhooks import endpoints

PATH = "/webhook_endpoints"
router = APIRouter(tags=["webhooks"])

CreateBody = Annotated[CreateWebhookEndpointRequest, Depends(body_as(CreateWebhookEndpointRequest))]
UpdateBody = Annotated[UpdateWebhookEndpointRequest, Depends(body_as(UpdateWebhookEndpointRequest))]
RotateBody = Annotated[RotateWebhookSecretRequest, Depends(body_as(RotateWebhookSecretRequest))]
SampleBody = Annotated[WebhookSampleRequest, Depends(body_as(WebhookSampleRequest))]


@router.get("/webhook_event_types")
def list_event_types(_project: Project) -> WebhookEventTypeList:
    return WebhookEventTypeList(object="list", data=list(EVENT_TYPES))


@router.post(PATH, openapi_extra=json_body(CreateWebhookEndpointRequest))
def create_endpoint(
    project: Project, hooks: Hooks, key: IdempotencyKey, body: JsonBody, request: CreateBody
) -> WebhookEndpointWithSecret:
    """Have the ends of jobs told to a URL; the signing secret is told here alone."""
    once = once_per_body(project, key, path=PATH, body=body)
    return endpoints.create_endpoint(hooks, project, request, once_per=once)


@router.get(PATH)
def list_endpoints(project: Project, hooks: Hooks, page: PlainPage) -> BoundedPage[WebhookEndpoint]:
    """List the project's endpoints, newest first."""
    return endpoints.list_endpoints(hooks, project, after=page.after, limit=page.limit)


@router.get(PATH + "/{webhook_endpoint_id}")
def get_endpoint(webhook_endpoint_id: str, project: Project, hooks: Hooks) -> WebhookEndpoint:
    return endpoints.find_endpoint(hooks, project, webhook_endpoint_id)


@router.post(PATH + "/{webhook_endpoint_id}", openapi_extra=json_body(UpdateWebhookEndpointRequest))
def update_endpoint(webhook_endpoint_id: str, project: Project, hooks: Hooks, request: UpdateBody) -> WebhookEndpoint:
    """Change what is given."""
    return endpoints.update_endpoint(hooks, project, webhook_endpoint_id, request)


@router.delete(PATH + "/{webhook_endpoint_id}")
def delete_endpoint(webhook_endpoint_id: str, project: Project, hooks: Hooks) -> WebhookEndpointDeleted:
    """Delete an endpoint, and what was still to be told to it."""
    return endpoints.delete_endpoint(hooks, project, webhook_endpoint_id)


@router.post(PATH + "/{webhook_endpoint_id}/rotate_secret", openapi_extra=json_body(RotateWebhookSecretRequest))
def rotate_secret(
    webhook_endpoint_id: str, project: Project, hooks: Hooks, request: RotateBody
) -> WebhookEndpointWithSecret:
    """Get a new signing secret; the old one may sign beside it for a day."""
    keeps_old = request.keep_old_secret_active_for_24_hours
    return endpoints.rotate_secret(hooks, project, webhook_endpoint_id, keeps_old=keeps_old)


@router.post(PATH + "/{webhook_endpoint_id}/test", openapi_extra=json_body(WebhookSampleRequest))
async def test_endpoint(
    webhook_endpoint_id: str, project: Project, app: App, hooks: Hooks, request: SampleBody
) -> WebhookTestResult:
    """Send a signed sample now, and tell what the endpoint answered."""
    return await app.webhook_test_lane.run(
        partial(endpoints.send_test, hooks, project, webhook_endpoint_id, request.event_type)
    )


@router.get(PATH + "/{webhook_endpoint_id}/deliveries")
def list_deliveries(webhook_endpoint_id: str, project: Project, hooks: Hooks, page: PlainPage) -> Page[WebhookDelivery]:
    """List what was and is to be told to an endpoint, newest first, with the last attempt's result."""
    return endpoints.list_deliveries(hooks, project, webhook_endpoint_id, after=page.after, limit=page.limit)
