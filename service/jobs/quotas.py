"""What a project may have at a time: asked for before a job comes into the queue. The dispatcher asks for the rest."""

from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.clock import month_start, next_month_start
from service.db.projects import ProjectRepository
from service.db.queue import QueueRepository
from service.db.tables import ProjectRow
from service.db.usage import UsageRepository
from service.jobs.job_errors import QuotaExceeded

RETRY_S = 30
RETRY_NEVER_S = 86_400
"""Where waiting alone changes nothing."""


def check_place_in_queue(session: Session, project_id: ProjectId) -> None:
    """Raises: QuotaExceeded."""
    projects = ProjectRepository(session)
    if projects.get(project_id).max_queued_jobs is None:
        return
    limit = projects.lock(project_id).max_queued_jobs  # two requests at once must not both take the last place
    if limit is not None and QueueRepository(session).count_waiting(project_id, at_most=limit) >= limit:
        raise QuotaExceeded(
            f"The project may have {limit} job(s) waiting and has as many; try again when one has started, "
            "cancel one, or ask the operator for more",
            retry_after_s=RETRY_S,
        )


def check_gpus(session: Session, project_id: ProjectId, *, gpus: int, now: datetime) -> None:
    """Refuse a new job that needs more GPUs than it can get. Raises: QuotaExceeded."""
    project = ProjectRepository(session).get(project_id)
    if gpus == 0:
        return
    if project.max_gpus is not None and gpus > project.max_gpus:
        raise QuotaExceeded(
            f"The job needs {gpus} GPU(s) and the project may hold {project.max_gpus} at a time; lower resources.gpus "
            "(0 trains on CPU), or ask the operator for more",
            param="resources.gpus",
            retry_after_s=RETRY_NEVER_S,
        )
    _check_gpu_hours(session, project, now=now)


def _check_gpu_hours(session: Session, project: ProjectRow, *, now: datetime) -> None:
    limit, next_month = project.max_gpu_hours_a_month, next_month_start(now)
    if limit is None:
        return
    used = UsageRepository(session).measure_gpu_hours(ProjectId(project.id), since=month_start(now), until=now)
    if used >= limit:
        raise QuotaExceeded(
            f"The project has used {used:.1f} GPU-hours this month and may use {limit:g}; try again from "
            f"{next_month:%Y-%m-%d} (UTC) on, train on CPU (resources.gpus: 0), or ask the operator for more",
            retry_after_s=int((next_month - now).total_seconds()) + 1,
        )
