"""A project's quotas as an administrator sets them, and what counts against each."""

from datetime import datetime

from pydantic import JsonValue
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from schemas.organization import ProjectQuotas, ProjectUsage, QuotaChanges
from service.clock import month_start
from service.db.queue import QueueRepository
from service.db.tables import ProjectRow
from service.db.usage import UsageRepository


def set_quotas(row: ProjectRow, asked: QuotaChanges | None) -> dict[str, JsonValue]:
    """Change what is given; it counts from the next look of a dispatcher or a request on. Returns what is new."""
    if asked is None:
        return {}
    values: dict[str, JsonValue] = asked.model_dump(mode="json", exclude_unset=True)
    changes = {name: value for name, value in values.items() if value != getattr(row, name)}
    for name, value in changes.items():
        setattr(row, name, value)
    row.gpu_hours_used_up_until = None  # to be summed up anew
    return changes


def present_quotas(row: ProjectRow) -> ProjectQuotas:
    return ProjectQuotas(
        max_running_jobs=row.max_running_jobs,
        max_queued_jobs=row.max_queued_jobs,
        max_gpus=row.max_gpus,
        max_gpu_hours_a_month=row.max_gpu_hours_a_month,
        max_stored_bytes=row.max_stored_bytes,
    )


def measure_usage(session: Session, row: ProjectRow, *, now: datetime) -> ProjectUsage:
    project_id = ProjectId(row.id)
    queue, usage = QueueRepository(session), UsageRepository(session)
    gpu_hours = usage.measure_gpu_hours(project_id, since=month_start(now), until=now)
    return ProjectUsage(
        running_jobs=queue.count_running(project_id),
        queued_jobs=queue.count_waiting(project_id),
        gpus=usage.count_held_gpus(project_id),
        gpu_hours_this_month=round(gpu_hours, 4),
        stored_bytes=usage.measure_stored_bytes(project_id, now=now),
    )
