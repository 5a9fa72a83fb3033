"""Service accounts of a project and its keys, as an administrator sees them: what was revoked is gone."""

from datetime import datetime

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from schemas.ids import KeyId, ProjectId, ServiceAccountId
from service.db.tables import ApiKeyRow, ServiceAccountRow


class ServiceAccountRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, account: ServiceAccountRow) -> None:
        self._session.add(account)
        self._session.flush()

    def find(self, project_id: ProjectId, account_id: str, *, locked: bool = False) -> ServiceAccountRow | None:
        """`locked`: nobody else deletes it, or gives it a key, before this writing transaction ends."""
        query = _living(project_id).where(ServiceAccountRow.id == account_id)
        return self._session.scalars(query.with_for_update(key_share=True) if locked else query).first()

    def list_after(self, project_id: ProjectId, *, after: str | None, limit: int) -> list[ServiceAccountRow]:
        """Newest first."""
        query = _living(project_id)
        if after is not None:
            query = query.where(ServiceAccountRow.id < after)
        return list(self._session.scalars(query.order_by(ServiceAccountRow.id.desc()).limit(limit)))

    def find_owners(self, account_ids: list[str]) -> dict[str, ServiceAccountRow]:
        """By id."""
        query = select(ServiceAccountRow).where(ServiceAccountRow.id.in_(account_ids))
        return {row.id: row for row in self._session.scalars(query)}

    def delete(self, account_id: ServiceAccountId, *, now: datetime) -> None:
        """With its keys, which open nothing from this transaction's end on."""
        self._session.execute(
            update(ServiceAccountRow).where(ServiceAccountRow.id == account_id).values(deleted_at=now)
        )
        self._session.execute(
            update(ApiKeyRow)
            .where(ApiKeyRow.service_account_id == account_id, ApiKeyRow.revoked_at.is_(None))
            .values(revoked_at=now)
        )

    def find_key(self, project_id: ProjectId, key_id: str) -> ApiKeyRow | None:
        return self._session.scalars(_unrevoked(project_id).where(ApiKeyRow.id == key_id)).first()

    def list_keys_after(self, project_id: ProjectId, *, after: str | None, limit: int) -> list[ApiKeyRow]:
        """Newest first."""
        query = _unrevoked(project_id)
        if after is not None:
            query = query.where(ApiKeyRow.id < after)
        return list(self._session.scalars(query.order_by(ApiKeyRow.id.desc()).limit(limit)))

    def revoke_key(self, key_id: KeyId, *, now: datetime) -> None:
        self._session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(revoked_at=now))


def _living(project_id: ProjectId) -> Select[ServiceAccountRow]:
    return select(ServiceAccountRow).where(
        ServiceAccountRow.project_id == project_id, ServiceAccountRow.deleted_at.is_(None)
    )


def _unrevoked(project_id: ProjectId) -> Select[ApiKeyRow]:
    return select(ApiKeyRow).where(ApiKeyRow.project_id == project_id, ApiKeyRow.revoked_at.is_(None))
