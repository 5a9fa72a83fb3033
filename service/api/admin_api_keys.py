"""`/v1/organization/admin_api_keys`, under an admin key."""

from typing import Annotated

from fastapi import APIRouter, Depends

from schemas.organization import AdminKey, AdminKeyCreated, AdminKeyDeleted, CreateAdminKeyRequest
from schemas.pages import BoundedPage
from service.api.auth import Org
from service.api.idempotency import IdempotencyKey, once_per_body
from service.api.json_bodies import AdminJsonBody
from service.api.openapi import CONFLICT, json_body
from service.api.pages import AdminKeysPage
from service.api.typed_bodies import admin_body_as
from service.db.idempotency import ORGANIZATION
from service.organization import admin_keys

PATH = "/organization/admin_api_keys"
router = APIRouter(prefix=PATH, tags=["organization"])

CreateBody = Annotated[CreateAdminKeyRequest, Depends(admin_body_as(CreateAdminKeyRequest))]


@router.post("", openapi_extra=json_body(CreateAdminKeyRequest))
def create_admin_key(org: Org, key: IdempotencyKey, body: AdminJsonBody, request: CreateBody) -> AdminKeyCreated:
    """Create an admin key; its value is told here alone."""
    once = once_per_body(ORGANIZATION, key, path=PATH, body=body)
    return admin_keys.create_admin_key(org, request, once_per=once)


@router.get("")
def list_admin_keys(org: Org, page: AdminKeysPage) -> BoundedPage[AdminKey]:
    """List the admin keys without their values, newest first unless `order=asc`."""
    return admin_keys.list_admin_keys(org, after=page.after, limit=page.limit, newest_first=page.order == "desc")


@router.get("/{key_id}")
def get_admin_key(key_id: str, org: Org) -> AdminKey:
    return admin_keys.find_admin_key(org, key_id)


@router.delete("/{key_id}", responses=CONFLICT)
def delete_admin_key(key_id: str, org: Org) -> AdminKeyDeleted:
    """Revoke an admin key at once; not the one that asks."""
    return admin_keys.revoke_admin_key(org, key_id)
