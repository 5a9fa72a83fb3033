"""Rows for tests of the database."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from schemas.ids import DispatcherId, JobId, ProjectId
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.leases import Lease
from service.db.locks import Lock, take_lock
from service.db.projects import ProjectRepository
from service.db.queue import QueueRepository
from service.db.runs import RunRepository
from service.db.tables import JobRow, ProjectRow
from service.dispatcher.requirements import Requirements
from service.dispatcher.run_rows import new_run
from service.identifiers import new_job_id, new_project_id

ON_CPUS = Requirements(1, 0)
FIRST_DISPATCHER = DispatcherId("dispatcher-1")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def add_job(
    database: Database,
    project_id: ProjectId,
    *,
    status: str = "queued",
    metadata: dict[str, str] | None = None,
    priority: int = 0,
    gpus: int = 0,
) -> JobId:
    job_id = new_job_id()
    row = JobRow(
        id=job_id,
        project_id=project_id,
        status=status,
        version=0,
        attempt=0,
        event_count=0,
        priority=priority,
        gpus=gpus,
        created_at=NOW,
        request={},
        model="m",
        training_file_id="file-1",
        seed=0,
        fine_tuned_model="ft:m",
        result_file_ids=[],
    )
    with database.write() as session:
        JobRepository(session).add(row, metadata=metadata or {})
    return job_id


def add_project(database: Database, **columns: object) -> ProjectId:
    project_id = new_project_id()
    row = ProjectRow(id=project_id, name="another", created_at=NOW, **columns)
    with database.write() as session:
        ProjectRepository(session).add(row)
    return project_id


def claim_next(database: Database, *, owner: DispatcherId = FIRST_DISPATCHER, now: datetime = NOW) -> JobId | None:
    """Claim the job whose turn it is, as a cluster without end would let it."""
    with database.write() as session:
        take_lock(session, Lock.QUEUE)
        queue = QueueRepository(session)
        heads = queue.list_heads(now=now, limit=1)
        if not heads:
            return None
        claimed = queue.claim([heads[0].job_id], Lease(owner, now + timedelta(seconds=30)), now=now)
        return JobId(claimed[0].id) if claimed else None


def add_run(session: Session, job_id: JobId, needed: Requirements = ON_CPUS) -> None:
    """Its first attempt."""
    RunRepository(session).add(new_run(session.get_one(JobRow, job_id), needed, attempt=1, now=NOW))
