"""Give waiting jobs their turn, as far as the cluster has room: whose it is says the queue, what fits says the cluster.

Looking and taking are one transaction under the queue's lock, so that several dispatchers together neither overfill
the cluster nor pass a quota. A job too large for the room that is left keeps it from smaller ones of its kind (GPU or
CPU): it would otherwise wait for ever.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from sqlalchemy.orm import Session

from schemas.ids import JobId
from service.backends.backend import Capacity
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.locks import Lock, take_lock
from service.db.queue import Held, QueueRepository
from service.db.tables import JobRow
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.leases import new_lease
from service.dispatcher.model_of_job import ModelGone, find_model
from service.dispatcher.requirements import Requirements, has_room, refuse_reason, resolve_requirements
from service.dispatcher.run_rows import add_run
from service.dispatcher.transitions import fail_job

LOOK_AHEAD = 100
"""Projects looked at in one round."""


class _Turn(Enum):
    TAKEN = auto()
    REFUSED = auto()
    PASSED = auto()


@dataclass(slots=True)
class _Room:
    """What is left of the cluster while a round takes from it."""

    capacity: Capacity
    held: Held
    waiting_kinds: set[bool] = field(default_factory=set)
    """Whether of GPU jobs, of CPU jobs, one waits for more room."""

    def take(self, needed: Requirements) -> bool:
        kind = needed.gpus > 0
        if kind in self.waiting_kinds:
            return False
        if not has_room(needed, self.held, self.capacity):
            self.waiting_kinds.add(kind)
            return False
        self.held = Held(self.held.gpus + needed.gpus, self.held.cpu_runs + (needed.gpus == 0))
        return True

    @property
    def is_full(self) -> bool:
        return len(self.waiting_kinds) == 2


def claim_round(context: DispatchContext) -> bool:
    """Claim at most one job of each project that runs the fewest. False: nobody had a turn, the next round is no other.

    Raises: BackendUnavailable.
    """
    with context.database.read() as session:
        if QueueRepository(session).is_empty():
            return False
    capacity = context.backend.capacity()
    with context.database.write() as session:
        take_lock(session, Lock.QUEUE)
        return _give_turns(session, context, capacity, now=context.clock())


def _give_turns(session: Session, context: DispatchContext, capacity: Capacity, *, now: datetime) -> bool:
    queue = QueueRepository(session)
    room = _Room(capacity, queue.count_held())
    fewest: int | None = None
    has_moved = False
    for head in queue.list_heads(limit=LOOK_AHEAD):
        if room.is_full or (fewest is not None and head.running > fewest):
            break
        turn = _give_turn(session, context, head.job_id, room, now=now)
        has_moved = has_moved or turn is not _Turn.PASSED
        if turn is _Turn.TAKEN:
            fewest = head.running
    return has_moved


def _give_turn(session: Session, context: DispatchContext, job_id: JobId, room: _Room, *, now: datetime) -> _Turn:
    job = JobRepository(session).find_any(job_id)
    if job is None:
        return _Turn.PASSED
    try:
        needed = resolve_requirements(job, find_model(session, job, context.registry).entry)
    except ModelGone as gone:
        return _refuse(session, job, gone.failure, now=now)
    failure = refuse_reason(needed, room.capacity)
    if failure is not None:
        return _refuse(session, job, failure, now=now)
    if not room.take(needed):
        return _Turn.PASSED
    return _claim(session, context, job_id, needed, now=now)


def _refuse(session: Session, job: JobRow, failure: JobFailure, *, now: datetime) -> _Turn:
    """Fail a job that can never have a turn."""
    return _Turn.REFUSED if fail_job(session, job, seen="queued", failure=failure, now=now) else _Turn.PASSED


def _claim(session: Session, context: DispatchContext, job_id: JobId, needed: Requirements, *, now: datetime) -> _Turn:
    claimed = QueueRepository(session).claim(job_id, new_lease(context, now), now=now)
    if claimed is None:
        return _Turn.PASSED  # its user was faster
    add_run(session, job_id, attempt=claimed.attempt, needed=needed, now=now)
    EventRepository(session).append(job_id, [NewEvent("job:running", now, "info", "Fine-tuning job started")])
    return _Turn.TAKEN
