"""`/v1/organization/projects/{id}/rate_limits`, under an admin key."""

from typing import Annotated

from fastapi import APIRouter, Depends

from schemas.organization import ProjectRateLimit, UpdateRateLimitRequest
from schemas.pages import BoundedPage
from service.api.auth import Org
from service.api.dependencies import App
from service.api.openapi import CONFLICT, json_body
from service.api.pages import RateLimitsPage
from service.api.typed_bodies import admin_body_as
from service.organization import rate_limits

router = APIRouter(prefix="/organization/projects/{project_id}/rate_limits", tags=["organization"])

UpdateBody = Annotated[UpdateRateLimitRequest, Depends(admin_body_as(UpdateRateLimitRequest))]


@router.get("")
def list_rate_limits(project_id: str, org: Org, app: App, page: RateLimitsPage) -> BoundedPage[ProjectRateLimit]:
    """List the limits of requests of any kind (`*`) and of jobs by base model."""
    return rate_limits.list_rate_limits(
        org, project_id, app.registry, after=page.after, before=page.before, limit=page.limit
    )


@router.post("/{rate_limit_id:path}", openapi_extra=json_body(UpdateRateLimitRequest), responses=CONFLICT)
def update_rate_limit(project_id: str, rate_limit_id: str, org: Org, app: App, request: UpdateBody) -> ProjectRateLimit:
    """Change what is given; 2147483647 lifts a limit."""
    return rate_limits.update_rate_limit(org, project_id, rate_limit_id, request, app.registry)
