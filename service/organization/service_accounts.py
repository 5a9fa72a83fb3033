"""Service accounts: whom a project's keys are given to. A key's value is told once and kept as a hash."""

from datetime import datetime, timedelta

from pydantic import JsonValue
from sqlalchemy.orm import Session

from schemas.ids import ProjectId, ServiceAccountId
from schemas.organization import (
    CreateServiceAccountKeyRequest,
    CreateServiceAccountRequest,
    ServiceAccount,
    ServiceAccountCreated,
    ServiceAccountDeleted,
    ServiceAccountKey,
    ServiceAccountKeyMade,
    UpdateServiceAccountRequest,
)
from schemas.pages import BoundedPage, bounded_page
from service.api_keys import hash_api_key, last_characters, new_api_key
from service.clock import unix_seconds
from service.cursors import check_cursor
from service.db.once import OncePer, create_once
from service.db.projects import ProjectRepository
from service.db.service_accounts import ServiceAccountRepository
from service.db.tables import ApiKeyRow, ProjectRow, ServiceAccountRow
from service.errors import InvalidRequest
from service.identifiers import new_key_id, new_service_account_id
from service.nearest import shown
from service.organization.audit import record
from service.organization.organization import Organization
from service.organization.organization_errors import SecretToldBefore, ServiceAccountNotFound
from service.organization.projects import require_active_project, require_project

FIRST_KEY_NAME = "Secret Key"


def create_service_account(
    organization: Organization, project_id: str, request: CreateServiceAccountRequest, *, once_per: OncePer | None
) -> ServiceAccountCreated:
    """With a first key, unless told otherwise.

    Raises: InvalidRequest, ProjectNotFound, ProjectArchived, IdempotencyKeyReused, SecretToldBefore.
    """
    _refuse_lifetime_of_no_key(request)
    now, value, key = organization.clock(), new_api_key(), None
    account = ServiceAccountRow(
        id=new_service_account_id(), project_id=project_id, name=request.name, created_at=now, deleted_at=None
    )
    if not request.create_service_account_only:
        wanted = CreateServiceAccountKeyRequest(expires_in_seconds=request.expires_in_seconds)
        key = _key_row(project_id, account.id, wanted, value, now=now)

    def create(session: Session) -> ServiceAccount:
        project = require_active_project(session, project_id)
        ServiceAccountRepository(session).add(account)
        data: dict[str, JsonValue] = {"name": account.name, "role": "member"}
        record(session, organization, "service_account.created", account.id, project=project, data=data)
        if key is not None:
            _add_key(session, organization, project, key)
        return _present(account)

    answer = create_once(organization.database, once_per, create, answer_type=ServiceAccount, now=now)
    if key is None:
        return ServiceAccountCreated(**answer.model_dump(), api_key=None)
    if answer.id != account.id:
        raise SecretToldBefore(answer.id, path=f"/v1/organization/projects/{project_id}/service_accounts")
    return ServiceAccountCreated(**answer.model_dump(), api_key=_with_value(_present_key(key), value))


def _refuse_lifetime_of_no_key(request: CreateServiceAccountRequest) -> None:
    if request.create_service_account_only and request.expires_in_seconds is not None:
        raise InvalidRequest(
            f"expires_in_seconds is {request.expires_in_seconds}, and there is no key to expire with "
            "create_service_account_only; leave one of the two out",
            param="expires_in_seconds",
        )


def create_key(
    organization: Organization,
    project_id: str,
    account_id: str,
    request: CreateServiceAccountKeyRequest,
    *,
    once_per: OncePer | None,
) -> ServiceAccountKey:
    """Raises: ProjectNotFound, ProjectArchived, ServiceAccountNotFound, IdempotencyKeyReused, SecretToldBefore."""
    now, value = organization.clock(), new_api_key()
    key = _key_row(project_id, account_id, request, value, now=now)

    def create(session: Session) -> ServiceAccountKeyMade:
        project = require_active_project(session, project_id)
        _require_account(session, ProjectId(project.id), account_id, locked=True)
        _add_key(session, organization, project, key)
        return _present_key(key)

    answer = create_once(organization.database, once_per, create, answer_type=ServiceAccountKeyMade, now=now)
    if answer.id != key.id:
        raise SecretToldBefore(answer.id, path=f"/v1/organization/projects/{project_id}/api_keys")
    return _with_value(answer, value)


def find_service_account(organization: Organization, project_id: str, account_id: str) -> ServiceAccount:
    """Raises: ProjectNotFound, ServiceAccountNotFound."""
    with organization.database.read() as session:
        project = require_project(session, project_id)
        return _present(_require_account(session, ProjectId(project.id), account_id))


def list_service_accounts(
    organization: Organization, project_id: str, *, after: str | None, limit: int
) -> BoundedPage[ServiceAccount]:
    """Newest first. Raises: ProjectNotFound, InvalidRequest."""
    check_cursor(after, prefix="svc_", kind="a service account")
    with organization.database.read() as session:
        project = require_project(session, project_id)
        rows = ServiceAccountRepository(session).list_after(ProjectId(project.id), after=after, limit=limit + 1)
    return bounded_page([_present(row) for row in rows], limit=limit)


def update_service_account(
    organization: Organization, project_id: str, account_id: str, request: UpdateServiceAccountRequest
) -> ServiceAccount:
    """Raises: ProjectNotFound, ProjectArchived, ServiceAccountNotFound."""
    with organization.database.write() as session:
        project = require_active_project(session, project_id)
        account = _require_account(session, ProjectId(project.id), account_id)
        account.name = request.name or account.name
        changes = request.model_dump(mode="json", exclude_none=True)
        record(session, organization, "service_account.updated", account.id, project=project, changes=changes)
        return _present(account)


def delete_service_account(organization: Organization, project_id: str, account_id: str) -> ServiceAccountDeleted:
    """Its keys open nothing from now on. Raises: ProjectNotFound, ServiceAccountNotFound."""
    with organization.database.write() as session:
        project = require_project(session, project_id)
        account = _require_account(session, ProjectId(project.id), account_id, locked=True)
        ServiceAccountRepository(session).delete(ServiceAccountId(account.id), now=organization.clock())
        record(session, organization, "service_account.deleted", account.id, project=project)
    return ServiceAccountDeleted(id=account_id, object="organization.project.service_account.deleted", deleted=True)


def _key_row(
    project_id: str, account_id: str, request: CreateServiceAccountKeyRequest, value: str, *, now: datetime
) -> ApiKeyRow:
    lifetime_s = request.expires_in_seconds
    return ApiKeyRow(
        id=new_key_id(),
        project_id=project_id,
        service_account_id=account_id,
        name=request.name or FIRST_KEY_NAME,
        sha256=hash_api_key(value),
        last_characters=last_characters(value),
        scopes=[*request.scopes],
        created_at=now,
        expires_at=None if lifetime_s is None else now + timedelta(seconds=lifetime_s),
        revoked_at=None,
    )


def _add_key(session: Session, organization: Organization, project: ProjectRow, key: ApiKeyRow) -> None:
    ProjectRepository(session).add_key(key)
    data: dict[str, JsonValue] = {"name": key.name, "scopes": [*key.scopes]}
    record(session, organization, "api_key.created", key.id, project=project, data=data)


def _present_key(row: ApiKeyRow) -> ServiceAccountKeyMade:
    return ServiceAccountKeyMade(
        id=row.id,
        object="organization.project.service_account.api_key",
        name=row.name,
        created_at=unix_seconds(row.created_at),
        expires_at=None if row.expires_at is None else unix_seconds(row.expires_at),
    )


def _with_value(key: ServiceAccountKeyMade, value: str) -> ServiceAccountKey:
    return ServiceAccountKey(**key.model_dump(), value=value)


def _require_account(
    session: Session, project_id: ProjectId, account_id: str, *, locked: bool = False
) -> ServiceAccountRow:
    row = ServiceAccountRepository(session).find(project_id, account_id, locked=locked)
    if row is None:
        raise ServiceAccountNotFound(f"The project {project_id} has no service account {shown(account_id)}")
    return row


def _present(row: ServiceAccountRow) -> ServiceAccount:
    return ServiceAccount(
        id=row.id,
        object="organization.project.service_account",
        name=row.name,
        role="member",
        created_at=unix_seconds(row.created_at),
    )
