"""Running jobs that may be stopped for another of their project, and the change that does it. Under `Lock.QUEUE`."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import literal_column, or_, select, tuple_, update
from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId, RunId
from service.db.jobs import JobRepository
from service.db.tables import JobRow, RunRow


@dataclass(frozen=True, slots=True)
class Candidate:
    job_id: JobId
    run_id: RunId
    attempt: int
    priority: int
    gpus: int


class PreemptionRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list_candidates(self, project_id: ProjectId, *, below: int, rested_since: datetime) -> list[Candidate]:
        """Of a priority below the one given, the lowest and youngest first.

        One that was stopped for another job before must have run since `rested_since`.
        """
        query = (
            select(JobRow.id, RunRow.id, JobRow.attempt, JobRow.priority, RunRow.gpus, JobRow.started_at)
            .join(RunRow, (RunRow.job_id == JobRow.id) & (RunRow.attempt == JobRow.attempt) & RunRow.ended_at.is_(None))
            .where(JobRow.project_id == project_id, JobRow.status == literal_column("'running'"))
            .where(JobRow.priority < below)
            .where(or_(JobRow.preempted_at.is_(None), JobRow.started_at <= rested_since))
        )
        rows = self._session.execute(query).all()
        youngest_first = sorted(rows, key=lambda row: (-row.priority, row.started_at, row[0]), reverse=True)
        return [
            Candidate(JobId(job_id), RunId(run_id), attempt, priority, gpus)
            for job_id, run_id, attempt, priority, gpus, _ in youngest_first
        ]

    def hold(self, candidates: Collection[Candidate]) -> bool:
        """Whether each still is what was seen, and nobody is at work on it; all stay so until we commit.

        It waits for nobody: one claim holds jobs of several projects, one project's after the other's, and who holds
        jobs by the order of their ids, as renewals do, would wait for it while it waits for them.
        """
        seen = [(candidate.job_id, candidate.attempt) for candidate in candidates]
        query = select(JobRow.id).where(tuple_(JobRow.id, JobRow.attempt).in_(seen), JobRow.status == "running")
        held = self._session.scalars(query.with_for_update(key_share=True, skip_locked=True)).all()
        return len(held) == len(candidates)

    def put_back(self, candidate: Candidate, *, for_job: JobId, status: str, now: datetime) -> bool:
        """Move it to the status, its run to be stopped. False: it is no longer what was seen."""
        changes = {"status": status, "estimated_finish_at": None, "preempted_at": now}
        if not JobRepository(self._session).update_running(
            candidate.job_id, attempt=candidate.attempt, changes=changes
        ):
            return False
        self._session.execute(update(RunRow).where(RunRow.id == candidate.run_id).values(preempted_by=for_job))
        return True

    def note_preempting(self, job_id: JobId, *, now: datetime) -> None:
        self._session.execute(update(JobRow).where(JobRow.id == job_id).values(preempting_since=now))
