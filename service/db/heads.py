"""Each project's first waiting job, and which quota holds it back: what the queue's questions start from.

Statuses are written as literals: a partial index serves no bound parameter. A quota of GPUs holds back GPU jobs alone,
and the project's first job on CPUs goes past them.
"""

from datetime import timedelta

from sqlalchemy import Subquery, and_, bindparam, case, exists, func, literal_column, null, or_, select
from sqlalchemy.orm import aliased

from service.db.tables import JobRow, ProjectRow, RunRow, UtcDateTime

ROOM_KEPT = timedelta(minutes=2)
"""For how long a job goes before all others after it had jobs stopped to get their room: twice a stop's grace."""

IS_RUNNING = JobRow.status == literal_column("'running'")
IS_CLAIMABLE = (
    JobRow.status == literal_column("'queued'"),
    ~exists().where(RunRow.job_id == JobRow.id, RunRow.ended_at.is_(None)),
)
"""A resumed job waits for its former run, whose last steps and checkpoint the next one goes on from."""

_OF_PROJECT = JobRow.project_id == ProjectRow.id
_FIRST = select(JobRow.id).where(_OF_PROJECT, *IS_CLAIMABLE).order_by(JobRow.priority.desc(), JobRow.id).limit(1)
_FIRST_ON_CPUS = _FIRST.where(JobRow.gpus == literal_column("0"))
_RUNNING = select(func.count()).select_from(JobRow).where(_OF_PROJECT, IS_RUNNING)
_HELD_GPUS = select(func.coalesce(func.sum(RunRow.gpus), 0)).where(
    RunRow.project_id == ProjectRow.id, RunRow.ended_at.is_(None)
)


NOW = bindparam("now", type_=UtcDateTime())
KEPT_SINCE = bindparam("kept_since", type_=UtcDateTime())
"""`ROOM_KEPT` before `NOW`."""


def project_heads(*, with_quota_alone: bool = False) -> Subquery:
    """A row for each project that has a claimable job; without those that no quota can hold back, if asked for.

    Built once for each question: its parameters are `NOW` and `KEPT_SINCE`. `held_back_by` is `running`, `gpu_hours`,
    `gpus` or null; `turn_id` the job whose turn it is by the quotas, or null.
    """
    can_be_held_back = or_(
        ProjectRow.max_running_jobs.is_not(None),
        ProjectRow.max_gpus.is_not(None),
        ProjectRow.gpu_hours_used_up_until > NOW,
    )
    projects = select(
        ProjectRow,
        _RUNNING.scalar_subquery().label("running"),
        case((ProjectRow.max_gpus.is_(None), 0), else_=_HELD_GPUS.scalar_subquery()).label("held_gpus"),
        _FIRST.scalar_subquery().label("first_id"),
        _FIRST_ON_CPUS.scalar_subquery().label("first_on_cpus_id"),
    )
    waiting = (projects.where(can_be_held_back) if with_quota_alone else projects).subquery()
    project, first = waiting.c, aliased(JobRow)
    held_back_by = case(
        (project.running >= project.max_running_jobs, "running"),
        (and_(first.gpus > 0, project.gpu_hours_used_up_until > NOW), "gpu_hours"),
        (and_(first.gpus > 0, project.held_gpus + first.gpus > project.max_gpus), "gpus"),
        else_=null(),
    )
    turn_id = case(
        (held_back_by.is_(None), project.first_id),
        (held_back_by != "running", project.first_on_cpus_id),
        else_=null(),
    )
    keeps_room = case((and_(held_back_by.is_(None), first.preempting_since > KEPT_SINCE), 1), else_=0)
    return (
        select(
            project.id.label("project_id"),
            project.running,
            project.max_gpu_hours_a_month,
            project.last_claimed_at,
            project.first_id,
            first.priority,
            first.told_waiting_for,
            held_back_by.label("held_back_by"),
            turn_id.label("turn_id"),
            keeps_room.label("keeps_room"),
        )
        .join(first, first.id == project.first_id)
        .subquery()
    )
