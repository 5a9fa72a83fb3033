"""`/v1/organization/audit_logs`: who changed what of the organization, and when."""

from typing import Literal

from pydantic import Field, JsonValue

from schemas.audit_event_types import AuditEventType
from schemas.base import Response


class AuditActorKey(Response):
    id: str
    """Of the admin key."""
    type: Literal["service_account"]


class AuditActor(Response):
    type: Literal["api_key"]
    api_key: AuditActorKey


class AuditProject(Response):
    id: str
    name: str
    """As it was then."""


class AuditDetails(Response):
    id: str
    """Of what was changed."""
    data: dict[str, JsonValue] | None
    """What it was created with."""
    changes_requested: dict[str, JsonValue] | None


class AuditLog(Response):
    """Of the fields that are named as event types, the one of its `type` is filled."""

    id: str
    object: Literal["organization.audit_log"]
    type: AuditEventType
    effective_at: int
    """Unix seconds."""
    actor: AuditActor
    project: AuditProject | None
    """Null where an admin key was changed."""
    project_created: AuditDetails | None = Field(alias="project.created")
    project_updated: AuditDetails | None = Field(alias="project.updated")
    project_archived: AuditDetails | None = Field(alias="project.archived")
    service_account_created: AuditDetails | None = Field(alias="service_account.created")
    service_account_updated: AuditDetails | None = Field(alias="service_account.updated")
    service_account_deleted: AuditDetails | None = Field(alias="service_account.deleted")
    api_key_created: AuditDetails | None = Field(alias="api_key.created")
    api_key_updated: AuditDetails | None = Field(alias="api_key.updated")
    api_key_deleted: AuditDetails | None = Field(alias="api_key.deleted")
    rate_limit_updated: AuditDetails | None = Field(alias="rate_limit.updated")
