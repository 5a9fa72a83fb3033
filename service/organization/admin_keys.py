"""Admin keys: they open `/v1/organization`, and nothing of any project."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from schemas.ids import KeyId
from schemas.organization import AdminKey, AdminKeyCreated, AdminKeyDeleted, AdminKeyOwner, CreateAdminKeyRequest
from schemas.pages import BoundedPage, bounded_page
from service.api_keys import ADMIN_PREFIX, hash_api_key, last_characters, new_admin_key
from service.clock import unix_seconds
from service.cursors import check_cursor
from service.db.admin_keys import AdminKeyRepository
from service.db.once import OncePer, create_once
from service.db.tables import AdminKeyRow
from service.errors import Unauthorized
from service.identifiers import new_key_id
from service.nearest import shown
from service.organization.audit import record
from service.organization.organization import Organization
from service.organization.organization_errors import AdminKeyNotFound, OwnAdminKey, SecretToldBefore

PATH = "/v1/organization/admin_api_keys"


def create_admin_key(
    organization: Organization, request: CreateAdminKeyRequest, *, once_per: OncePer | None
) -> AdminKeyCreated:
    """Raises: IdempotencyKeyReused, SecretToldBefore."""
    value, now, lifetime_s = new_admin_key(), organization.clock(), request.expires_in_seconds
    expires_at = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
    row = admin_key_row(request.name, value, now=now, expires_at=expires_at)

    def create(session: Session) -> AdminKey:
        AdminKeyRepository(session).add(row)
        record(session, organization, "api_key.created", row.id, project=None, data={"name": row.name})
        return _present(row)

    answer = create_once(organization.database, once_per, create, answer_type=AdminKey, now=now)
    if answer.id != row.id:
        raise SecretToldBefore(answer.id, path=PATH)
    return AdminKeyCreated(**answer.model_dump(), value=value)


def admin_key_row(name: str, value: str, *, now: datetime, expires_at: datetime | None = None) -> AdminKeyRow:
    return AdminKeyRow(
        id=new_key_id(),
        name=name,
        sha256=hash_api_key(value),
        last_characters=last_characters(value),
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
    )


def find_admin_key(organization: Organization, key_id: str) -> AdminKey:
    """Raises: AdminKeyNotFound."""
    with organization.database.read() as session:
        return _present(_require_key(session, key_id))


def list_admin_keys(
    organization: Organization, *, after: str | None, limit: int, newest_first: bool
) -> BoundedPage[AdminKey]:
    """Raises: InvalidRequest."""
    check_cursor(after, prefix="key_", kind="an admin key")
    with organization.database.read() as session:
        rows = AdminKeyRepository(session).list_after(after=after, limit=limit + 1, newest_first=newest_first)
    return bounded_page([_present(row) for row in rows], limit=limit)


def revoke_admin_key(organization: Organization, key_id: str) -> AdminKeyDeleted:
    """It opens nothing from now on.

    Raises: AdminKeyNotFound; OwnAdminKey, for the key that asks; Unauthorized, when that was revoked meanwhile.
    """
    with organization.database.write() as session:
        now = organization.clock()
        # Two that revoke each other at once: the second finds itself revoked, and one is left.
        held = AdminKeyRepository(session).lock_open([organization.actor, key_id], now=now)
        row = _require_key(session, key_id)
        if row.id == organization.actor:
            raise OwnAdminKey("An admin key does not revoke itself, so that one is always left; ask with another")
        if organization.actor not in held:
            raise Unauthorized("The admin key that asks was revoked or has expired")
        AdminKeyRepository(session).revoke(KeyId(row.id), now=now)
        record(session, organization, "api_key.deleted", row.id, project=None)
    return AdminKeyDeleted(id=key_id, object="organization.admin_api_key.deleted", deleted=True)


def _require_key(session: Session, key_id: str) -> AdminKeyRow:
    row = AdminKeyRepository(session).find(key_id)
    if row is None:
        raise AdminKeyNotFound(f"The admin key {shown(key_id)} does not exist; GET {PATH} lists those that do")
    return row


def _present(row: AdminKeyRow) -> AdminKey:
    return AdminKey(
        id=row.id,
        object="organization.admin_api_key",
        name=row.name,
        redacted_value=f"{ADMIN_PREFIX}…{row.last_characters}",
        created_at=unix_seconds(row.created_at),
        expires_at=None if row.expires_at is None else unix_seconds(row.expires_at),
        last_used_at=None,
        owner=AdminKeyOwner(type="service_account", object="organization.service_account", name=row.name, role="owner"),
    )
