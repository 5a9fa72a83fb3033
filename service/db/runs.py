"""Runs: the attempts of jobs."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, SQLColumnExpression, case, func, literal, select, update
from sqlalchemy.orm import Session

from schemas.ids import DispatcherId, JobId, RunId
from service.db.tables import JobRow, RunRow, UtcDateTime


@dataclass(frozen=True, slots=True)
class OpenRun:
    job: JobRow
    """As it was with the run: each write says itself what it must still be."""
    run: RunRow


class RunRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, *runs: RunRow) -> None:
        self._session.add_all(runs)
        self._session.flush()

    def find(self, run_id: RunId) -> RunRow | None:
        return self._session.get(RunRow, run_id)

    def list_open(self, owner: DispatcherId, *, unsubmitted_alone: bool = False) -> list[OpenRun]:
        """Runs of the owner's jobs that the backend may still hold processes of, oldest first."""
        query = select(RunRow, JobRow).join(JobRow, JobRow.id == RunRow.job_id)
        query = query.where(RunRow.ended_at.is_(None), JobRow.lease_owner == owner)
        if unsubmitted_alone:
            query = query.where(RunRow.submitted_at.is_(None))
        return [OpenRun(job, run) for run, job in self._session.execute(query.order_by(RunRow.id))]

    def list_of_job(self, job_id: JobId) -> list[RunRow]:
        """Newest attempt first."""
        query = select(RunRow).where(RunRow.job_id == job_id).order_by(RunRow.attempt.desc())
        return list(self._session.scalars(query))

    def list_unadmitted(self) -> list[RunRow]:
        """Open runs of all dispatchers that wait for room in the cluster, oldest first."""
        query = select(RunRow).where(RunRow.ended_at.is_(None), RunRow.admitted_at.is_(None))
        return list(self._session.scalars(query.order_by(RunRow.id)))

    def admit(self, run_id: RunId, *, now: datetime) -> None:
        self._session.execute(update(RunRow).where(RunRow.id == run_id).values(admitted_at=now))

    def mark_submitted(self, run_ids: Collection[RunId], *, now: datetime) -> None:
        submitted_at = _no_earlier_than(RunRow.created_at, now)
        self._session.execute(update(RunRow).where(RunRow.id.in_(run_ids)).values(submitted_at=submitted_at))

    def mark_ended(self, run_id: RunId, *, now: datetime, reason: str) -> bool:
        """False: it had ended before, and keeps the reason of then."""
        ended_at = _no_earlier_than(func.coalesce(RunRow.submitted_at, RunRow.created_at), now)
        ended = self._session.execute(
            update(RunRow)
            .where(RunRow.id == run_id, RunRow.ended_at.is_(None))
            .values(ended_at=ended_at, end_reason=reason)
            .returning(RunRow.id)
        )
        return ended.first() is not None

    def advance_chunks(self, run_id: RunId, *, seen: int, to: int) -> bool:
        """Compare and set the count of ingested chunks. False: another ingest was faster."""
        changed = self._session.execute(
            update(RunRow)
            .where(RunRow.id == run_id, RunRow.chunks_ingested == seen)
            .values(chunks_ingested=to)
            .returning(RunRow.id)
        )
        return changed.first() is not None


def _no_earlier_than(begin: SQLColumnExpression[datetime], now: datetime) -> ColumnElement[datetime]:
    """A clock may have been set back, and no run may have used less than nothing."""
    moment = literal(now, UtcDateTime())
    return case((begin > moment, begin), else_=moment)
