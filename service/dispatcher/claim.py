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
from service.clock import month_start, next_month_start
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.locks import Lock, take_lock
from service.db.projects import ProjectRepository
from service.db.queue import Head, HeldBack, QueueRepository
from service.db.runs import RunRepository
from service.db.tables import JobRow
from service.db.usage import UsageRepository
from service.dispatcher.admit import admit_runs
from service.dispatcher.capacity_watch import note_capacity
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.job_request import UnreadableRequest, read_request
from service.dispatcher.leases import new_lease
from service.dispatcher.model_of_job import ModelGone, find_model
from service.dispatcher.preempt import preempt_for
from service.dispatcher.requirements import Requirements, refuse_reason, resolve_requirements
from service.dispatcher.room import Room
from service.dispatcher.run_rows import new_run
from service.dispatcher.transitions import fail_job
from service.dispatcher.waiting import tell_held_back, tell_waits_for_room

LOOK_AHEAD = 100
"""Projects looked at in one round."""
CLAIMS_AT_ONCE = 20
"""Rounds go on until there are as many: they are launched before the next ones, which others could take meanwhile."""


class _Turn(Enum):
    TAKEN = auto()
    MOVED = auto()
    """Something else has changed: the next round is another."""
    PASSED = auto()


@dataclass(slots=True)
class _Round:
    session: Session
    context: DispatchContext
    now: datetime
    room: Room
    largest: Capacity
    """What the cluster had at its best of late."""
    chosen: dict[JobId, Requirements] = field(default_factory=dict)
    """Jobs that have their turn and are not yet claimed."""
    claimed: int = 0


def claim_jobs(context: DispatchContext) -> bool:
    """Claim jobs in rounds, for as long as somebody has a turn. False: nobody had, and the next look finds no other.

    Raises: BackendUnavailable.
    """
    with context.database.read() as session:
        if QueueRepository(session).is_empty():
            return False
    capacity = context.backend.capacity()
    with context.database.write() as session:
        take_lock(session, Lock.QUEUE)
        now = context.clock()
        largest = note_capacity(session, capacity, now=now)
        has_moved = admit_runs(session, capacity, largest, now=now)
        this = _Round(session, context, now, Room(capacity, QueueRepository(session).count_held()), largest)
        while this.claimed < CLAIMS_AT_ONCE and _give_turns(this):
            has_moved = True
            this.room = Room(capacity, this.room.held)
        return has_moved


def _give_turns(this: _Round) -> bool:
    """Choose at most one job of each project that runs the fewest. False: nothing has changed."""
    heads = QueueRepository(this.session).list_heads(now=this.now, limit=LOOK_AHEAD)
    jobs = _load(this, [head.job_id for head in heads])
    fewest: int | None = None
    has_moved = False
    for head in heads:
        if this.room.is_kept_from_all or (fewest is not None and head.running > fewest):
            break
        turn = _give_turn(this, head, jobs[head.job_id])
        has_moved = has_moved or turn is not _Turn.PASSED
        if turn is _Turn.TAKEN and not head.keeps_room:
            fewest = head.running
    _claim_chosen(this)
    # what is held back is looked at when nothing else moves
    return has_moved or _hold_back_all(this)


def _load(this: _Round, job_ids: list[JobId]) -> dict[JobId, JobRow]:
    return {JobId(job.id): job for job in JobRepository(this.session).list_any(job_ids)} if job_ids else {}


def _give_turn(this: _Round, head: Head, job: JobRow) -> _Turn:
    needed = _resolve_or_refuse(this, job)
    if needed is None or _is_used_up(this, head, needed):
        return _Turn.MOVED
    if this.room.has_place_for(needed):
        this.room.take(needed)
        this.chosen[head.job_id] = needed
        return _Turn.TAKEN
    if this.room.is_kept_from(needed):
        return _Turn.PASSED  # it waits behind another, which was told
    this.room.keep_for(needed)
    _claim_chosen(this)  # their runs count among those that hold the room
    if preempt_for(this.session, job, needed, this.room.capacity, now=this.now):
        return _Turn.MOVED
    tell_waits_for_room(this.session, job, needed, this.room.held, this.room.capacity, now=this.now)
    return _Turn.PASSED


def _claim_chosen(this: _Round) -> None:
    """One whose user was faster is left out."""
    chosen, this.chosen = this.chosen, {}
    if not chosen:
        return
    claimed = QueueRepository(this.session).claim([*chosen], new_lease(this.context, this.now), now=this.now)
    RunRepository(this.session).add(
        *(
            new_run(job, chosen[JobId(job.id)], attempt=job.attempt, now=this.now, admitted_at=this.now)
            for job in claimed
        )
    )
    started = NewEvent("job:running", this.now, "info", "Fine-tuning job started")
    EventRepository(this.session).append_to_each([JobId(job.id) for job in claimed], started)
    this.claimed += len(claimed)


def _resolve_or_refuse(this: _Round, job: JobRow) -> Requirements | None:
    """What the job needs; None when it failed, as it never can have that, or needs something else than was noted."""
    try:
        model = find_model(this.session, job, this.context.registry)
        needed = resolve_requirements(read_request(job).resources, model.entry)
    except (ModelGone, UnreadableRequest) as error:
        _refuse(this, job, error.failure)
        return None
    failure = refuse_reason(needed, this.largest)
    if failure is not None:
        _refuse(this, job, failure)
        return None
    if job.gpus != needed.gpus:  # the registry tells another number than when the job was submitted
        changes = {"gpus": needed.gpus}
        JobRepository(this.session).update_unended(JobId(job.id), attempt=job.attempt, changes=changes)
        return None
    return needed


def _refuse(this: _Round, job: JobRow, failure: JobFailure) -> None:
    fail_job(this.session, job, seen="queued", failure=failure, now=this.now)


def _is_used_up(this: _Round, head: Head, needed: Requirements) -> bool:
    """Whether the project has no GPU-hours left for the job; noted then, so that it is asked once a month."""
    if not needed.gpus or head.max_gpu_hours_a_month is None:
        return False
    used = UsageRepository(this.session).measure_gpu_hours(head.project_id, since=month_start(this.now), until=this.now)
    if used < head.max_gpu_hours_a_month:
        return False
    project = ProjectRepository(this.session).lock(head.project_id)
    if project.max_gpu_hours_a_month == head.max_gpu_hours_a_month:  # else it was changed since we looked
        project.gpu_hours_used_up_until = next_month_start(this.now)
        this.session.flush()
    return True


def _hold_back_all(this: _Round) -> bool:
    found = QueueRepository(this.session).list_held_back(now=this.now, limit=LOOK_AHEAD)
    jobs = _load(this, [held_back.job_id for held_back in found])
    has_moved = False
    for held_back in found:
        has_moved = _hold_back(this, held_back, jobs[held_back.job_id]) or has_moved
    return has_moved


def _hold_back(this: _Round, held_back: HeldBack, job: JobRow) -> bool:
    """Tell a job which quota it waits for, or have others stopped for it, within the quota."""
    needed = _resolve_or_refuse(this, job)
    if needed is None:
        return True
    is_own_affair = held_back.reason != "gpu_hours" and not this.room.is_kept_from(needed)
    if is_own_affair and preempt_for(this.session, job, needed, this.room.capacity, now=this.now):
        return True
    tell_held_back(this.session, job, held_back.reason, now=this.now)
    return False
