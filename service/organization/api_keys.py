"""A project's API keys as an administrator sees them: everything but their values."""

from datetime import timedelta
from typing import Literal

from sqlalchemy.orm import Session

from schemas.ids import KeyId, ProjectId
from schemas.organization import KeyOwner, KeyOwnerAccount, ProjectApiKey, ProjectApiKeyDeleted, UpdateApiKeyRequest
from schemas.pages import BoundedPage, bounded_page
from service.api_keys import PREFIX
from service.clock import unix_seconds
from service.cursors import check_cursor
from service.db.service_accounts import ServiceAccountRepository
from service.db.tables import ApiKeyRow, ProjectRow, ServiceAccountRow
from service.nearest import shown
from service.organization.audit import record
from service.organization.organization import Organization
from service.organization.organization_errors import ApiKeyExpired, ApiKeyNotFound
from service.organization.projects import require_project

Access = Literal["active", "inactive", "any"]


def find_key(organization: Organization, project_id: str, key_id: str) -> ProjectApiKey:
    """Raises: ProjectNotFound, ApiKeyNotFound."""
    with organization.database.read() as session:
        project = require_project(session, project_id)
        [key] = _present(session, project, [_require_key(session, project, key_id)])
        return key


def list_keys(
    organization: Organization, project_id: str, *, access: Access, after: str | None, limit: int
) -> BoundedPage[ProjectApiKey]:
    """Newest first; expired ones are shown, revoked ones are gone. Raises: ProjectNotFound, InvalidRequest."""
    check_cursor(after, prefix="key_", kind="an API key")
    with organization.database.read() as session:
        project = require_project(session, project_id)
        if access not in ("any", _access(project)):
            return bounded_page([], limit=limit)
        rows = ServiceAccountRepository(session).list_keys_after(ProjectId(project.id), after=after, limit=limit + 1)
        return bounded_page(_present(session, project, rows), limit=limit)


def update_key(organization: Organization, project_id: str, key_id: str, request: UpdateApiKeyRequest) -> ProjectApiKey:
    """Raises: ProjectNotFound, ApiKeyNotFound, ApiKeyExpired."""
    now = organization.clock()
    with organization.database.write() as session:
        project = require_project(session, project_id)
        row = _require_key(session, project, key_id)
        if row.expires_at is not None and row.expires_at <= now:
            raise ApiKeyExpired(f"The API key {row.id} has expired, and stays so; create a new one")
        if request.expires_in_seconds is not None:
            row.expires_at = now + timedelta(seconds=request.expires_in_seconds)
        if request.scopes is not None:
            row.scopes = [*request.scopes]
        changes = request.model_dump(mode="json", exclude_none=True)
        record(session, organization, "api_key.updated", row.id, project=project, changes=changes)
        [key] = _present(session, project, [row])
        return key


def revoke_key(organization: Organization, project_id: str, key_id: str) -> ProjectApiKeyDeleted:
    """It opens nothing from now on. Raises: ProjectNotFound, ApiKeyNotFound."""
    with organization.database.write() as session:
        project = require_project(session, project_id)
        row = _require_key(session, project, key_id)
        ServiceAccountRepository(session).revoke_key(KeyId(row.id), now=organization.clock())
        record(session, organization, "api_key.deleted", row.id, project=project)
    return ProjectApiKeyDeleted(id=key_id, object="organization.project.api_key.deleted", deleted=True)


def _require_key(session: Session, project: ProjectRow, key_id: str) -> ApiKeyRow:
    row = ServiceAccountRepository(session).find_key(ProjectId(project.id), key_id)
    if row is None:
        raise ApiKeyNotFound(f"The project {project.id} has no API key {shown(key_id)}")
    return row


def _present(session: Session, project: ProjectRow, rows: list[ApiKeyRow]) -> list[ProjectApiKey]:
    account_ids = [row.service_account_id for row in rows if row.service_account_id is not None]
    owners = ServiceAccountRepository(session).find_owners(account_ids)
    return [
        ProjectApiKey(
            id=row.id,
            object="organization.project.api_key",
            name=row.name,
            redacted_value=f"{PREFIX}…{row.last_characters}",
            created_at=unix_seconds(row.created_at),
            expires_at=None if row.expires_at is None else unix_seconds(row.expires_at),
            last_used_at=None,
            owner=_owner(owners.get(row.service_account_id or "")),
            owner_project_access=_access(project),
        )
        for row in rows
    ]


def _access(project: ProjectRow) -> Literal["active", "inactive"]:
    return "active" if project.archived_at is None else "inactive"


def _owner(account: ServiceAccountRow | None) -> KeyOwner:
    if account is None:
        return KeyOwner(type="service_account", service_account=None)
    shown_account = KeyOwnerAccount(
        id=account.id, name=account.name, role="member", created_at=unix_seconds(account.created_at)
    )
    return KeyOwner(type="service_account", service_account=shown_account)
