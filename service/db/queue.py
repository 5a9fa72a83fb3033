"""The queue as a claim sees it: whose turn it is, and what the open runs hold of the cluster.

Looked at and changed under `Lock.QUEUE`. Every query is an index look-up for each project that there is, however many
jobs wait or have ended. The status is written into them as a literal: a partial index serves no bound parameter.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, exists, func, literal_column, or_, select, update
from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId
from service.db.committed import tell_on_commit
from service.db.leases import Lease
from service.db.tables import JobRow, ProjectRow, RunRow
from service.telemetry.facts import JobMoved


@dataclass(frozen=True, slots=True)
class Head:
    """The job of a project that is next."""

    job_id: JobId
    running: int
    """Jobs of its project that run already."""


@dataclass(frozen=True, slots=True)
class Held:
    """What all open runs hold together."""

    gpus: int
    cpu_runs: int
    """Runs without a GPU."""


class QueueRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def is_empty(self) -> bool:
        return self._session.scalar(select(JobRow.id).where(*_IS_CLAIMABLE).limit(1)) is None

    def list_heads(self, *, limit: int) -> list[Head]:
        """Each project's next job, the fairest first, without those of projects that run as many as they may.

        Within a project the highest priority goes first, then the oldest job. Among projects the one with the fewest
        running jobs goes first, then the one that had its last turn longest ago.
        """
        heads = select(_RUNNING, _NEXT, ProjectRow.max_running_jobs, ProjectRow.last_claimed_at).subquery()
        query = (
            select(heads.c.next_id, heads.c.running)
            .where(heads.c.next_id.is_not(None))
            .where(or_(heads.c.max_running_jobs.is_(None), heads.c.running < heads.c.max_running_jobs))
            .order_by(heads.c.running, heads.c.last_claimed_at.asc().nulls_first(), heads.c.next_id)
            .limit(limit)
        )
        return [Head(JobId(job_id), running) for job_id, running in self._session.execute(query)]

    def claim(self, job_id: JobId, lease: Lease, *, now: datetime) -> JobRow | None:
        """Move a queued job to `running` under a new attempt and a lease; None when it is no longer queued."""
        claimed = self._session.scalars(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.status == "queued")
            .values(
                status="running",
                attempt=JobRow.attempt + 1,
                version=JobRow.version + 1,
                started_at=now,
                lease_owner=lease.owner,
                lease_expires_at=lease.until,
            )
            .returning(JobRow)
            .execution_options(populate_existing=True)
        ).first()
        if claimed is not None:
            self._note_turn(ProjectId(claimed.project_id), now=now)
            tell_on_commit(self._session, JobMoved(claimed.id, claimed.project_id, seen="queued", to="running"))
        return claimed

    def count_held(self) -> Held:
        is_cpu_run = case((RunRow.gpus == 0, 1), else_=0)
        query = select(func.coalesce(func.sum(RunRow.gpus), 0), func.coalesce(func.sum(is_cpu_run), 0))
        gpus, cpu_runs = self._session.execute(query.where(RunRow.ended_at.is_(None))).one()
        return Held(gpus=int(gpus), cpu_runs=int(cpu_runs))

    def count_waiting(self, project_id: ProjectId, *, at_most: int) -> int:
        """Jobs of the project that are validated or wait for their turn, counted up to `at_most`."""
        some = select(JobRow.id).where(JobRow.project_id == project_id, _IS_WAITING).limit(at_most).subquery()
        return self._session.scalar(select(func.count()).select_from(some)) or 0

    def _note_turn(self, project_id: ProjectId, *, now: datetime) -> None:
        self._session.execute(update(ProjectRow).where(ProjectRow.id == project_id).values(last_claimed_at=now))


_HAS_OPEN_RUN = exists().where(RunRow.job_id == JobRow.id, RunRow.ended_at.is_(None))
_IS_CLAIMABLE = (JobRow.status == literal_column("'queued'"), ~_HAS_OPEN_RUN)
"""A resumed job waits for its former run, whose last steps and checkpoint the next one goes on from."""
_IS_WAITING = JobRow.status.in_([literal_column("'validating_files'"), literal_column("'queued'")])

_RUNNING = (
    select(func.count())
    .select_from(JobRow)
    .where(JobRow.project_id == ProjectRow.id, JobRow.status == literal_column("'running'"))
    .scalar_subquery()
    .label("running")
)
_NEXT = (
    select(JobRow.id)
    .where(JobRow.project_id == ProjectRow.id, *_IS_CLAIMABLE)
    .order_by(JobRow.priority.desc(), JobRow.id)
    .limit(1)
    .scalar_subquery()
    .label("next_id")
)
