"""Admin keys."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from schemas.ids import KeyId
from service.db.tables import AdminKeyRow


class AdminKeyRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, key: AdminKeyRow) -> None:
        self._session.add(key)
        self._session.flush()

    def find_open(self, sha256: str, *, now: datetime) -> AdminKeyRow | None:
        """A key that is neither revoked nor expired."""
        return self._session.scalars(select(AdminKeyRow).where(AdminKeyRow.sha256 == sha256, *_is_open(now))).first()

    def knows(self, sha256: str) -> bool:
        """Whether the key was ever given, revoked or not."""
        return self._session.scalar(select(AdminKeyRow.id).where(AdminKeyRow.sha256 == sha256)) is not None

    def find(self, key_id: str) -> AdminKeyRow | None:
        """One that is not revoked."""
        query = select(AdminKeyRow).where(AdminKeyRow.id == key_id, AdminKeyRow.revoked_at.is_(None))
        return self._session.scalars(query).first()

    def lock_open(self, key_ids: Collection[str], *, now: datetime) -> set[KeyId]:
        """Those that open something, which nobody changes before the transaction ends."""
        query = select(AdminKeyRow.id).where(AdminKeyRow.id.in_(key_ids), *_is_open(now))
        return {KeyId(key_id) for key_id in self._session.scalars(query.order_by(AdminKeyRow.id).with_for_update())}

    def list_after(self, *, after: str | None, limit: int, newest_first: bool) -> list[AdminKeyRow]:
        """Those that are not revoked."""
        query = select(AdminKeyRow).where(AdminKeyRow.revoked_at.is_(None))
        if after is not None:
            query = query.where(AdminKeyRow.id < after if newest_first else AdminKeyRow.id > after)
        order = AdminKeyRow.id.desc() if newest_first else AdminKeyRow.id.asc()
        return list(self._session.scalars(query.order_by(order).limit(limit)))

    def revoke(self, key_id: KeyId, *, now: datetime) -> None:
        self._session.execute(update(AdminKeyRow).where(AdminKeyRow.id == key_id).values(revoked_at=now))


def _is_open(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return AdminKeyRow.revoked_at.is_(None), or_(AdminKeyRow.expires_at.is_(None), AdminKeyRow.expires_at > now)
