"""`/v1/organization/projects` and the API keys in them, under an admin key."""

from typing import Annotated

from fastapi import APIRouter, Depends

from schemas.organization import (
    CreateProjectRequest,
    OrganizationProject,
    ProjectApiKey,
    ProjectApiKeyDeleted,
    UpdateApiKeyRequest,
    UpdateProjectRequest,
)
from schemas.pages import BoundedPage
from service.api.auth import Org
from service.api.idempotency import IdempotencyKey, once_per_body
from service.api.json_bodies import AdminJsonBody
from service.api.openapi import CONFLICT, json_body
from service.api.pages import ProjectKeysPage, ProjectsPage
from service.api.typed_bodies import admin_body_as
from service.db.idempotency import ORGANIZATION
from service.organization import api_keys, projects

PATH = "/organization/projects"
router = APIRouter(prefix=PATH, tags=["organization"])

NULL_IS_ABSENT = frozenset({"external_key_id", "geography", "residency"})
"""What OpenAI's projects may have and ours have not."""

CreateBody = Annotated[
    CreateProjectRequest, Depends(admin_body_as(CreateProjectRequest, null_is_absent=NULL_IS_ABSENT))
]
UpdateBody = Annotated[
    UpdateProjectRequest, Depends(admin_body_as(UpdateProjectRequest, null_is_absent=NULL_IS_ABSENT))
]
UpdateKeyBody = Annotated[UpdateApiKeyRequest, Depends(admin_body_as(UpdateApiKeyRequest))]


@router.post("", openapi_extra=json_body(CreateProjectRequest))
def create_project(org: Org, key: IdempotencyKey, body: AdminJsonBody, request: CreateBody) -> OrganizationProject:
    return projects.create_project(org, request, once_per=once_per_body(ORGANIZATION, key, path=PATH, body=body))


@router.get("")
def list_projects(org: Org, page: ProjectsPage) -> BoundedPage[OrganizationProject]:
    """List the projects, newest first."""
    return projects.list_projects(org, after=page.after, limit=page.limit, with_archived=page.include_archived)


@router.get("/{project_id}")
def get_project(project_id: str, org: Org) -> OrganizationProject:
    return projects.find_project(org, project_id)


@router.post("/{project_id}", openapi_extra=json_body(UpdateProjectRequest), responses=CONFLICT)
def update_project(project_id: str, org: Org, request: UpdateBody) -> OrganizationProject:
    """Change what is given."""
    return projects.update_project(org, project_id, request)


@router.post("/{project_id}/archive")
def archive_project(project_id: str, org: Org) -> OrganizationProject:
    """Close a project for good: its keys open nothing any more, its jobs run to their end."""
    return projects.archive_project(org, project_id)


@router.get("/{project_id}/api_keys")
def list_keys(project_id: str, org: Org, page: ProjectKeysPage) -> BoundedPage[ProjectApiKey]:
    """List the project's keys, newest first, without their values."""
    return api_keys.list_keys(org, project_id, access=page.owner_project_access, after=page.after, limit=page.limit)


@router.get("/{project_id}/api_keys/{api_key_id}")
def get_key(project_id: str, api_key_id: str, org: Org) -> ProjectApiKey:
    return api_keys.find_key(org, project_id, api_key_id)


@router.post("/{project_id}/api_keys/{api_key_id}", openapi_extra=json_body(UpdateApiKeyRequest), responses=CONFLICT)
def update_key(project_id: str, api_key_id: str, org: Org, request: UpdateKeyBody) -> ProjectApiKey:
    """Change a key's scopes or its expiry."""
    return api_keys.update_key(org, project_id, api_key_id, request)


@router.delete("/{project_id}/api_keys/{api_key_id}")
def delete_key(project_id: str, api_key_id: str, org: Org) -> ProjectApiKeyDeleted:
    """Revoke a key at once."""
    return api_keys.revoke_key(org, project_id, api_key_id)
