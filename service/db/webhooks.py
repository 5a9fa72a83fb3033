"""Webhook endpoints, and the outbox of what is to be delivered to them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from schemas.ids import DeliveryId, EndpointId, ProjectId
from service.db.committed import tell_on_commit
from service.db.tables import WebhookDeliveryRow, WebhookEndpointRow
from service.telemetry.facts import DeliveryAttempted, DeliveryEnding

ENDINGS: dict[str, DeliveryEnding] = {"delivered": "delivered", "failed": "failed", "pending": "retried"}


@dataclass(frozen=True, slots=True)
class Backlog:
    due: int
    since: datetime | None
    """When the one that waits longest was to be sent; None when none waits."""


class EndpointRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, endpoint: WebhookEndpointRow) -> None:
        self._session.add(endpoint)
        self._session.flush()

    def count(self, project_id: ProjectId) -> int:
        query = select(func.count()).where(WebhookEndpointRow.project_id == project_id)
        return self._session.execute(query).scalar_one()

    def find(self, project_id: ProjectId, endpoint_id: str, *, locked: bool = False) -> WebhookEndpointRow | None:
        """`locked`: nobody else changes it before this writing transaction ends."""
        query = select(WebhookEndpointRow).where(
            WebhookEndpointRow.project_id == project_id, WebhookEndpointRow.id == endpoint_id
        )
        return self._session.scalars(query.with_for_update() if locked else query).first()

    def find_any(self, endpoint_id: EndpointId) -> WebhookEndpointRow | None:
        """For the sender, which serves all projects."""
        return self._session.get(WebhookEndpointRow, endpoint_id)

    def list_kept(self, project_id: ProjectId) -> list[WebhookEndpointRow]:
        """The project's endpoints, none of which is deleted before this writing transaction ends."""
        query = select(WebhookEndpointRow).where(WebhookEndpointRow.project_id == project_id)
        keeping = query.order_by(WebhookEndpointRow.id).with_for_update(read=True, key_share=True)
        return list(self._session.scalars(keeping))

    def list_after(self, project_id: ProjectId, *, after: str | None, limit: int) -> list[WebhookEndpointRow]:
        """Newest first."""
        query = select(WebhookEndpointRow).where(WebhookEndpointRow.project_id == project_id)
        if after is not None:
            query = query.where(WebhookEndpointRow.id < after)
        return list(self._session.scalars(query.order_by(WebhookEndpointRow.id.desc()).limit(limit)))

    def delete(self, endpoint_id: EndpointId) -> None:
        """With all that was still to be delivered there."""
        self._session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id))
        self._session.execute(delete(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))


class DeliveryRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, delivery: WebhookDeliveryRow) -> None:
        self._session.add(delivery)
        self._session.flush()

    def claim_due(
        self, *, now: datetime, retry_at: datetime, passing_over: list[ProjectId]
    ) -> WebhookDeliveryRow | None:
        """Take the delivery that is due longest: it is counted as tried, and due again at `retry_at` if we die."""
        due = (
            select(WebhookDeliveryRow.id)
            .where(WebhookDeliveryRow.next_attempt_at <= now, WebhookDeliveryRow.project_id.not_in(passing_over))
            .order_by(WebhookDeliveryRow.next_attempt_at)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claimed = self._session.execute(
            update(WebhookDeliveryRow)
            .where(WebhookDeliveryRow.id == due)
            .values(next_attempt_at=retry_at, attempts=WebhookDeliveryRow.attempts + 1)
            .returning(WebhookDeliveryRow)
        )
        return claimed.scalars().first()

    def record_attempt(self, delivery_id: DeliveryId, *, attempt: int, changes: dict[str, Any]) -> None:
        """Fenced: what a later attempt has written stays."""
        recorded = self._session.scalar(
            update(WebhookDeliveryRow)
            .where(WebhookDeliveryRow.id == delivery_id, WebhookDeliveryRow.attempts == attempt)
            .values(**changes)
            .returning(WebhookDeliveryRow.status)
        )
        if recorded is not None:
            tell_on_commit(self._session, DeliveryAttempted(ENDINGS[recorded]))

    def backlog(self, *, now: datetime) -> Backlog:
        """What is due and not yet claimed."""
        query = select(func.count(), func.min(WebhookDeliveryRow.next_attempt_at))
        due, since = self._session.execute(query.where(WebhookDeliveryRow.next_attempt_at <= now)).one()
        return Backlog(due, since)

    def list_after(self, endpoint_id: EndpointId, *, after: str | None, limit: int) -> list[WebhookDeliveryRow]:
        """Newest first."""
        query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id)
        if after is not None:
            query = query.where(WebhookDeliveryRow.id < after)
        return list(self._session.scalars(query.order_by(WebhookDeliveryRow.id.desc()).limit(limit)))

    def delete_ended(self, *, before: datetime, limit: int) -> int:
        """Remove up to `limit` that were delivered or given up, and made before then; return how many."""
        old = (
            select(WebhookDeliveryRow.id)
            .where(WebhookDeliveryRow.next_attempt_at.is_(None), WebhookDeliveryRow.created_at < before)
            .limit(limit)
        )
        removed = self._session.execute(
            delete(WebhookDeliveryRow).where(WebhookDeliveryRow.id.in_(old)).returning(WebhookDeliveryRow.id)
        )
        return len(removed.all())
