"""Events of jobs: appended with a sequence that has no gap, each key once."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from schemas.ids import JobId
from service.db.tables import JobRow, RunEventRow
from service.db.text import storable
from service.identifiers import new_event_id


@dataclass(frozen=True, slots=True)
class NewEvent:
    key: str
    """What the event tells; a repeat of a key within a job is dropped."""
    created_at: datetime
    level: Literal["info", "warn", "error"]
    message: str
    data: dict[str, Any] | None = None
    type: Literal["message", "metrics"] = "message"
    """`metrics`: `data` has every metric of an optimizer step, which whoever reads this type relies on."""


class EventRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def append(self, job_id: JobId, events: list[NewEvent]) -> None:
        """Add those whose key is new to the job, in order. Needs a writing transaction."""
        # The update comes first: it takes the job's row lock, so that two writers cannot share a sequence number.
        last_seq = self._session.scalar(
            update(JobRow)
            .where(JobRow.id == job_id)
            .values(version=JobRow.version + 1)
            .returning(JobRow.event_count)
            .execution_options(synchronize_session=False)
        )
        if last_seq is None:
            raise LookupError(f"no job {job_id}")
        fresh = self._without_known_keys(job_id, events)
        for seq, event in enumerate(fresh, start=last_seq + 1):
            self._session.add(_row(job_id, seq, event))
        self._session.flush()
        self._session.execute(
            update(JobRow)
            .where(JobRow.id == job_id)
            .values(event_count=last_seq + len(fresh))
            .execution_options(synchronize_session=False)
        )

    def append_to_each(self, job_ids: Collection[JobId], event: NewEvent) -> None:
        """Add the event to each of the jobs whose own its key is not yet. Needs a writing transaction."""
        touched = update(JobRow).where(JobRow.id.in_(job_ids)).values(version=JobRow.version + 1)
        last_seqs = self._session.execute(
            touched.returning(JobRow.id, JobRow.event_count).execution_options(synchronize_session=False)
        ).all()
        is_known = (RunEventRow.job_id.in_(job_ids), RunEventRow.key == event.key)
        known = set(self._session.scalars(select(RunEventRow.job_id).where(*is_known)))
        fresh = [(JobId(job_id), last_seq) for job_id, last_seq in last_seqs if job_id not in known]
        self._session.add_all(_row(job_id, last_seq + 1, event) for job_id, last_seq in fresh)
        self._session.flush()
        self._session.execute(
            update(JobRow)
            .where(JobRow.id.in_([job_id for job_id, _ in fresh]))
            .values(event_count=JobRow.event_count + 1)
            .execution_options(synchronize_session=False)
        )

    def list_keys_since(self, job_id: JobId, *, last: Collection[str], beginning: str) -> list[str]:
        """Return the keys that begin so of events after the job's newest whose key begins with one of `last`."""
        is_last = or_(*(RunEventRow.key.startswith(each, autoescape=True) for each in last))
        newest = select(func.coalesce(func.max(RunEventRow.seq), 0)).where(RunEventRow.job_id == job_id, is_last)
        query = select(RunEventRow.key).where(RunEventRow.job_id == job_id, RunEventRow.seq > newest.scalar_subquery())
        return list(self._session.scalars(query.where(RunEventRow.key.startswith(beginning, autoescape=True))))

    def list_after(self, job_id: JobId, *, after: str | None, limit: int) -> list[RunEventRow] | None:
        """Newest first; None when `after` is no event of this job."""
        query = select(RunEventRow).where(RunEventRow.job_id == job_id)
        if after is not None:
            seq = self._session.scalar(
                select(RunEventRow.seq).where(RunEventRow.job_id == job_id, RunEventRow.id == after)
            )
            if seq is None:
                return None
            query = query.where(RunEventRow.seq < seq)
        return list(self._session.scalars(query.order_by(RunEventRow.seq.desc()).limit(limit)))

    def _without_known_keys(self, job_id: JobId, events: list[NewEvent]) -> list[NewEvent]:
        by_key = {event.key: event for event in reversed(events)}  # the first of a key wins
        known = set(
            self._session.scalars(
                select(RunEventRow.key).where(RunEventRow.job_id == job_id, RunEventRow.key.in_(by_key))
            )
        )
        return [event for event in events if event.key not in known and by_key[event.key] is event]


def _row(job_id: JobId, seq: int, event: NewEvent) -> RunEventRow:
    return RunEventRow(
        id=new_event_id(),
        job_id=job_id,
        seq=seq,
        key=event.key,
        created_at=event.created_at,
        level=event.level,
        type=event.type,
        message=storable(event.message),
        data=event.data,
    )
