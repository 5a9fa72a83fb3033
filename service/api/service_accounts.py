"""`/v1/organization/projects/{id}/service_accounts`, under an admin key."""

from typing import Annotated

from fastapi import APIRouter, Depends

from schemas.organization import (
    CreateServiceAccountKeyRequest,
    CreateServiceAccountRequest,
    ServiceAccount,
    ServiceAccountCreated,
    ServiceAccountDeleted,
    ServiceAccountKey,
    UpdateServiceAccountRequest,
)
from schemas.pages import BoundedPage
from service.api.auth import Org
from service.api.idempotency import IdempotencyKey, once_per_body
from service.api.json_bodies import AdminJsonBody
from service.api.openapi import CONFLICT, json_body
from service.api.pages import PlainPage
from service.api.typed_bodies import admin_body_as
from service.db.idempotency import ORGANIZATION
from service.organization import service_accounts

PATH = "/organization/projects/{project_id}/service_accounts"
router = APIRouter(prefix=PATH, tags=["organization"])

CreateBody = Annotated[CreateServiceAccountRequest, Depends(admin_body_as(CreateServiceAccountRequest))]
UpdateBody = Annotated[UpdateServiceAccountRequest, Depends(admin_body_as(UpdateServiceAccountRequest))]
CreateKeyBody = Annotated[CreateServiceAccountKeyRequest, Depends(admin_body_as(CreateServiceAccountKeyRequest))]


@router.post("", openapi_extra=json_body(CreateServiceAccountRequest), responses=CONFLICT)
def create_service_account(
    project_id: str, org: Org, key: IdempotencyKey, body: AdminJsonBody, request: CreateBody
) -> ServiceAccountCreated:
    """Create an account with its first key, whose value is told here alone."""
    once = once_per_body(ORGANIZATION, key, path=PATH.format(project_id=project_id), body=body)
    return service_accounts.create_service_account(org, project_id, request, once_per=once)


@router.get("")
def list_service_accounts(project_id: str, org: Org, page: PlainPage) -> BoundedPage[ServiceAccount]:
    """List the project's accounts, newest first."""
    return service_accounts.list_service_accounts(org, project_id, after=page.after, limit=page.limit)


@router.get("/{service_account_id}")
def get_service_account(project_id: str, service_account_id: str, org: Org) -> ServiceAccount:
    return service_accounts.find_service_account(org, project_id, service_account_id)


@router.post("/{service_account_id}", openapi_extra=json_body(UpdateServiceAccountRequest), responses=CONFLICT)
def update_service_account(project_id: str, service_account_id: str, org: Org, request: UpdateBody) -> ServiceAccount:
    """Change what is given."""
    return service_accounts.update_service_account(org, project_id, service_account_id, request)


@router.delete("/{service_account_id}")
def delete_service_account(project_id: str, service_account_id: str, org: Org) -> ServiceAccountDeleted:
    """Delete an account; its keys are revoked at once."""
    return service_accounts.delete_service_account(org, project_id, service_account_id)


@router.post(
    "/{service_account_id}/api_keys",
    openapi_extra=json_body(CreateServiceAccountKeyRequest),
    responses=CONFLICT,
)
def create_key(
    project_id: str,
    service_account_id: str,
    org: Org,
    key: IdempotencyKey,
    body: AdminJsonBody,
    request: CreateKeyBody,
) -> ServiceAccountKey:
    """Give an account another key; its value is told here alone."""
    path = f"{PATH.format(project_id=project_id)}/{service_account_id}/api_keys"
    once = once_per_body(ORGANIZATION, key, path=path, body=body)
    return service_accounts.create_key(org, project_id, service_account_id, request, once_per=once)
