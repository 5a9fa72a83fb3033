"""Leases: which dispatcher works on a job. Taken for a while, renewed while it lives, and asked for before each write.

The expiry only lets others in. What decides is the owner: whoever is no longer the row's owner writes nothing, whatever
its clock says. A lease is no change of the job that a user sees, so the job's version stays.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from schemas.ids import DispatcherId, JobId
from service.db.tables import JobRow, RunRow

FREE: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}
MAX_SKEW = timedelta(minutes=5)
"""How far clocks may differ. A lease that ends later than anybody could give it now, by more than that, was given by a
clock that has been set back since: nobody would take it over for as long as it was ahead."""


@dataclass(frozen=True, slots=True)
class Lease:
    owner: DispatcherId
    until: datetime


class LeaseRepository:
    def __init__(self, session: Session, owner: DispatcherId) -> None:
        self._session = session
        self._owner = owner

    def hold(self, job_id: JobId) -> bool:
        """Whether the job is the owner's; nobody changes that before the transaction ends."""
        return bool(self.hold_all([job_id]))

    def hold_all(self, job_ids: Collection[JobId]) -> set[JobId]:
        """Those that are the owner's; nobody changes that before the transaction ends."""
        return set(self._lock(and_(JobRow.id.in_(job_ids), self._is_own)))

    def take_new(self, *, now: datetime, until: datetime, limit: int) -> int:
        """Take jobs whose files wait to be validated, oldest first; returns how many."""
        return self._take(and_(JobRow.status == "validating_files", _is_free(now, until)), until=until, limit=limit)

    def take_over(self, *, now: datetime, until: datetime, limit: int) -> int:
        """Take jobs with an open run that nobody works on any more, oldest first; returns how many."""
        return self._take(_is_orphan(now, until), until=until, limit=limit)

    def is_any_new(self, *, now: datetime, until: datetime) -> bool:
        query = select(JobRow.id).where(JobRow.status == "validating_files", _is_free(now, until))
        return self._session.scalar(query.limit(1)) is not None

    def is_any_orphan(self, *, now: datetime, until: datetime) -> bool:
        return self._session.scalar(select(JobRow.id).where(_is_orphan(now, until)).limit(1)) is not None

    def renew(self, *, until: datetime) -> int:
        """Prolong all of the owner's leases; returns how many there are."""
        self._lock(self._is_own)
        return self._update(self._is_own, lease_expires_at=until)

    def release(self, job_id: JobId) -> None:
        self._update(and_(JobRow.id == job_id, self._is_own), **FREE)

    def release_all(self) -> int:
        self._lock(self._is_own)
        return self._update(self._is_own, **FREE)

    @property
    def _is_own(self) -> ColumnElement[bool]:
        return JobRow.lease_owner == self._owner

    def _lock(self, condition: ColumnElement[bool]) -> Sequence[JobId]:
        """Always in the same order, or two that want some of the same jobs would each wait for the other."""
        # A key share lock of others, who add rows that refer to the job, is not in the way.
        query = select(JobRow.id).where(condition).order_by(JobRow.id).with_for_update(key_share=True)
        return [JobId(job_id) for job_id in self._session.scalars(query)]

    def _take(self, condition: ColumnElement[bool], *, until: datetime, limit: int) -> int:
        free = select(JobRow.id).where(condition).order_by(JobRow.id).limit(limit)
        ids = self._session.scalars(free.with_for_update(skip_locked=True, of=JobRow)).all()
        return self._update(JobRow.id.in_(ids), lease_owner=self._owner, lease_expires_at=until) if ids else 0

    def _update(self, condition: ColumnElement[bool], **columns: Any) -> int:
        statement = update(JobRow).where(condition).values(**columns).execution_options(synchronize_session=False)
        return cast(CursorResult[Any], self._session.execute(statement)).rowcount


def _is_free(now: datetime, until: datetime) -> ColumnElement[bool]:
    is_over = or_(JobRow.lease_expires_at < now, JobRow.lease_expires_at > until + MAX_SKEW)
    return or_(JobRow.lease_owner.is_(None), is_over)


def _is_orphan(now: datetime, until: datetime) -> ColumnElement[bool]:
    return and_(exists().where(RunRow.job_id == JobRow.id, RunRow.ended_at.is_(None)), _is_free(now, until))
