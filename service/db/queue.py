"""The queue as a claim sees it: whose turn it is, and what the open runs hold of the cluster.

Looked at and changed under `Lock.QUEUE`. Every query is a few index look-ups for each project that there is, however
many jobs wait or have ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from schemas.ids import JobId, ProjectId
from service.db.committed import tell_on_commit
from service.db.heads import IS_CLAIMABLE, IS_RUNNING, ROOM_KEPT, project_heads
from service.db.leases import Lease
from service.db.tables import JobRow, ProjectRow, RunRow
from service.telemetry.facts import JobMoved

QuotaReason = Literal["running", "gpu_hours", "gpus"]
WAITS_FOR_CLUSTER = "cluster"
"""As `told_waiting_for` has it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The job of a project that is next."""

    job_id: JobId
    project_id: ProjectId
    running: int
    """Jobs of its project that run already."""
    max_gpu_hours_a_month: float | None
    keeps_room: bool
    """Whether it goes before all others: it had jobs stopped to get their room."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The job of a project that would be next, and the quota that keeps it waiting."""

    job_id: JobId
    reason: QuotaReason


@dataclass(frozen=True, slots=True)
class Held:
    """What open runs hold together."""

    gpus: int
    cpu_runs: int
    """Runs without a GPU."""


class QueueRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def is_empty(self) -> bool:
        """Whether nothing waits: no job for its turn, no run for room."""
        has_job = self._session.scalar(select(JobRow.id).where(*IS_CLAIMABLE).limit(1)) is not None
        return not has_job and not self.has_unadmitted_run()

    def has_unadmitted_run(self) -> bool:
        query = select(RunRow.id).where(_IS_OPEN, RunRow.admitted_at.is_(None))
        return self._session.scalar(query.limit(1)) is not None

    def list_heads(self, *, now: datetime, limit: int) -> list[Head]:
        """Each project's next job, the fairest first, without those that a quota holds back.

        Within a project the highest priority goes first, then the oldest job. Among projects the one with the fewest
        running jobs goes first, then the one that had its last turn longest ago.
        """
        found = self._session.execute(_LIST_HEADS, _at(now, limit))
        return [
            Head(JobId(job_id), ProjectId(project_id), running, gpu_hours, bool(keeps_room))
            for job_id, project_id, running, gpu_hours, keeps_room in found
        ]

    def list_held_back(self, *, now: datetime, limit: int) -> list[HeldBack]:
        """First jobs that a quota holds back, as far as there is something to do: to tell it, or to preempt a job."""
        found = self._session.execute(_LIST_HELD_BACK, _at(now, limit))
        return [HeldBack(JobId(job_id), reason) for job_id, reason in found]

    def list_untold_of_cluster(self, *, now: datetime, limit: int) -> list[JobId]:
        """Each project's next job, unless it was last told that it waits for the cluster."""
        found = self._session.scalars(_LIST_UNTOLD_OF_CLUSTER, _at(now, limit))
        return [JobId(job_id) for job_id in found]

    def claim(self, job_ids: Sequence[JobId], lease: Lease, *, now: datetime) -> list[JobRow]:
        """Move queued jobs to `running` under a new attempt and a lease; returns those that were still queued."""
        changed = self._session.scalars(
            update(JobRow)
            .where(JobRow.id.in_(job_ids), JobRow.status == "queued")
            .values(
                status="running",
                attempt=JobRow.attempt + 1,
                version=JobRow.version + 1,
                started_at=now,
                told_waiting_for=None,
                preempting_since=None,
                lease_owner=lease.owner,
                lease_expires_at=lease.until,
            )
            .returning(JobRow)
            .execution_options(populate_existing=True, synchronize_session=False)
        )
        claimed = sorted(changed, key=lambda job: job_ids.index(JobId(job.id)))
        self._note_turns({job.project_id for job in claimed}, now=now)
        for job in claimed:
            tell_on_commit(self._session, JobMoved(job.id, job.project_id, seen="queued", to="running"))
        return claimed

    def count_held(self) -> Held:
        """What all open runs hold."""
        return self._count_held(_IS_OPEN)

    def count_staying(self, project_id: ProjectId | None = None) -> Held:
        """What those hold that nobody has told to stop; of one project, if named."""
        is_staying = exists().where(
            JobRow.id == RunRow.job_id, JobRow.status == literal_column("'running'"), JobRow.attempt == RunRow.attempt
        )
        is_asked_for = [] if project_id is None else [RunRow.project_id == project_id]
        return self._count_held(_IS_OPEN, is_staying, *is_asked_for)

    def count_running(self, project_id: ProjectId) -> int:
        query = select(func.count()).select_from(JobRow).where(JobRow.project_id == project_id, IS_RUNNING)
        return self._session.scalar(query) or 0

    def count_waiting(self, project_id: ProjectId, *, at_most: int | None = None) -> int:
        """Jobs of the project that are validated or wait for their turn, counted up to `at_most`, if given."""
        some = select(JobRow.id).where(JobRow.project_id == project_id, _IS_WAITING).limit(at_most).subquery()
        return self._session.scalar(select(func.count()).select_from(some)) or 0

    def _count_held(self, *conditions: ColumnElement[bool]) -> Held:
        is_cpu_run = case((RunRow.gpus == 0, 1), else_=0)
        query = select(func.coalesce(func.sum(RunRow.gpus), 0), func.coalesce(func.sum(is_cpu_run), 0))
        gpus, cpu_runs = self._session.execute(query.where(*conditions)).one()
        return Held(gpus=int(gpus), cpu_runs=int(cpu_runs))

    def _note_turns(self, project_ids: set[str], *, now: datetime) -> None:
        self._session.execute(
            update(ProjectRow)
            .where(ProjectRow.id.in_(project_ids))
            .values(last_claimed_at=now)
            .execution_options(synchronize_session=False)
        )


_IS_OPEN = RunRow.ended_at.is_(None)
_IS_WAITING = JobRow.status.in_([literal_column("'validating_files'"), literal_column("'queued'")])


def _at(now: datetime, limit: int) -> dict[str, Any]:
    return {"now": now, "kept_since": now - ROOM_KEPT, "limit": limit}


def _heads_question() -> Select[Any]:
    heads = project_heads().c
    return (
        select(heads.turn_id, heads.project_id, heads.running, heads.max_gpu_hours_a_month, heads.keeps_room)
        .where(heads.turn_id.is_not(None))
        .order_by(heads.keeps_room.desc(), heads.running, heads.last_claimed_at.asc().nulls_first(), heads.turn_id)
        .limit(bindparam("limit", type_=Integer))
    )


def _held_back_question() -> Select[Any]:
    heads = project_heads(with_quota_alone=True).c
    lower = aliased(JobRow)
    has_lower = exists().where(
        lower.project_id == heads.project_id,
        lower.status == literal_column("'running'"),
        lower.priority < heads.priority,
    )
    is_untold = heads.told_waiting_for.is_distinct_from(heads.held_back_by)
    return (
        select(heads.first_id, heads.held_back_by)
        .where(heads.held_back_by.is_not(None))
        .where(or_(is_untold, and_(heads.held_back_by != "gpu_hours", has_lower)))
        .order_by(case((is_untold, 0), else_=1), heads.first_id)
        .limit(bindparam("limit", type_=Integer))
    )


def _untold_of_cluster_question() -> Select[Any]:
    heads, turn = project_heads(), aliased(JobRow)
    return (
        select(turn.id)
        .join(heads, heads.c.turn_id == turn.id)
        .where(turn.told_waiting_for.is_distinct_from(WAITS_FOR_CLUSTER))
        .order_by(turn.id)
        .limit(bindparam("limit", type_=Integer))
    )


# To build such a statement costs more than to run it.
_LIST_HEADS = _heads_question()
_LIST_HELD_BACK = _held_back_question()
_LIST_UNTOLD_OF_CLUSTER = _untold_of_cluster_question()
