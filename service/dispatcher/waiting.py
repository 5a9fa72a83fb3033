"""What a waiting job is told: once for each thing that it waits for, until it runs again."""

from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId
from service.backends.backend import Capacity
from service.clock import next_month_start
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.projects import ProjectRepository
from service.db.queue import WAITS_FOR_CLUSTER, Held, QuotaReason
from service.db.tables import JobRow
from service.db.usage import UsageRepository
from service.dispatcher.requirements import Requirements


def tell_waits_for_room(
    session: Session, job: JobRow, needed: Requirements, held: Held, capacity: Capacity, *, now: datetime
) -> None:
    """`held`: by others."""
    if needed.gpus:
        free = max(0, capacity.gpus - held.gpus)
        there = f"{free} of the cluster's {capacity.gpus} are free"
        message = f"Waiting for room in the cluster: the job needs {needed.gpus} GPU(s), and {there}"
    else:
        message = f"Waiting for room in the cluster: {held.cpu_runs} job(s) train on its CPUs, which is all that fit"
    _tell(session, job, "room", message, now=now)


def tell_waits_for_cluster(session: Session, job: JobRow, *, now: datetime) -> None:
    """What kept it from answering is for the log: it names addresses."""
    message = "Waiting for the cluster, which does not answer; the job starts once it does"
    _tell(session, job, WAITS_FOR_CLUSTER, message, now=now, level="warn")


def tell_held_back(session: Session, job: JobRow, reason: QuotaReason, *, now: datetime) -> None:
    """By a quota of its project."""
    project = ProjectRepository(session).get(ProjectId(job.project_id))
    match reason:
        case "running":
            message = f"Waiting for the project's other jobs: it may run {project.max_running_jobs} at a time"
        case "gpus":
            held = UsageRepository(session).count_held_gpus(ProjectId(job.project_id))
            message = (
                f"Waiting for the project's other jobs: this one needs {job.gpus} GPU(s), and they hold {held} of the "
                f"{project.max_gpus} that the project may hold"
            )
        case "gpu_hours":
            message = (
                f"Waiting for {next_month_start(now):%Y-%m-%d} (UTC): the project has used up its "
                f"{project.max_gpu_hours_a_month:g} GPU-hours of this month; what runs already goes on to its end"
            )
    _tell(session, job, reason, message, now=now)


def _tell(
    session: Session,
    job: JobRow,
    waits_for: str,
    message: str,
    *,
    now: datetime,
    level: Literal["info", "warn"] = "info",
) -> None:
    """One whose user was faster is told nothing."""
    if job.told_waiting_for == waits_for:
        return
    job_id = JobId(job.id)
    changes = {"told_waiting_for": waits_for}
    if JobRepository(session).update_unended(job_id, attempt=job.attempt, changes=changes):
        EventRepository(session).append(job_id, [NewEvent(f"waits:{waits_for}:{job.attempt}", now, level, message)])
