"""The outbox: what is to be told is written in the transaction that makes it true, and sent afterwards.

A job's end therefore is told if and only if it was committed, whatever is killed in between.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from schemas.fine_tuning import JobStatus
from schemas.ids import ProjectId
from schemas.webhooks import WebhookEvent, WebhookEventType, WebhookSubject
from service.clock import unix_seconds
from service.db.tables import WebhookDeliveryRow
from service.db.webhooks import DeliveryRepository, EndpointRepository
from service.identifiers import new_delivery_id, new_webhook_event_id

TOLD: dict[JobStatus, WebhookEventType] = {
    "succeeded": "fine_tuning.job.succeeded",
    "failed": "fine_tuning.job.failed",
    "cancelled": "fine_tuning.job.cancelled",
}


def tell_endpoints(session: Session, project_id: ProjectId, job_id: str, *, status: JobStatus, now: datetime) -> None:
    """Put a job's new status into the outbox for each endpoint that wants it. Needs a writing transaction."""
    event_type = TOLD.get(status)
    if event_type is None:
        return
    event = new_event(event_type, job_id, now=now)
    for endpoint in EndpointRepository(session).list_kept(project_id):
        if event_type in endpoint.event_types:
            DeliveryRepository(session).add(
                WebhookDeliveryRow(
                    id=new_delivery_id(),
                    endpoint_id=endpoint.id,
                    project_id=project_id,
                    event=event.model_dump(mode="json"),
                    status="pending",
                    attempts=0,
                    created_at=now,
                    next_attempt_at=now,
                    last_attempt_at=None,
                    last_status_code=None,
                    last_error=None,
                )
            )


def new_event(event_type: WebhookEventType, job_id: str, *, now: datetime) -> WebhookEvent:
    return WebhookEvent(
        id=new_webhook_event_id(),
        object="event",
        created_at=unix_seconds(now),
        type=event_type,
        data=WebhookSubject(id=job_id),
    )
