"""Let the next attempts of lost runs into the cluster when it has room for them: a lost node takes room with it.

Their jobs have had their turn, so they come before what waits, and hold their room meanwhile. Under the queue's lock.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import JobId, RunId
from service.backends.backend import Capacity
from service.db.jobs import JobRepository
from service.db.queue import Held, QueueRepository
from service.db.runs import RunRepository
from service.db.tables import RunRow
from service.dispatcher.requirements import Requirements, has_room, refuse_reason
from service.dispatcher.transitions import fail_job
from service.dispatcher.waiting import tell_waits_for_room


def admit_runs(session: Session, capacity: Capacity, largest: Capacity, *, now: datetime) -> bool:
    """Admit what fits, oldest first. True when one was admitted or refused."""
    waiting = RunRepository(session).list_unadmitted()
    if not waiting:
        return False
    held = _without(QueueRepository(session).count_held(), waiting)
    has_moved = False
    for run in waiting:
        needed = Requirements.of(run)
        if has_room(needed, held, capacity):
            RunRepository(session).admit(RunId(run.id), now=now)
            held = Held(held.gpus + needed.gpus, held.cpu_runs + (needed.gpus == 0))
            has_moved = True
        elif _refuse_or_tell(session, run, needed, held, capacity, largest, now=now):
            has_moved = True
    return has_moved


def _refuse_or_tell(
    session: Session,
    run: RunRow,
    needed: Requirements,
    held: Held,
    capacity: Capacity,
    largest: Capacity,
    *,
    now: datetime,
) -> bool:
    job = JobRepository(session).find_any(JobId(run.job_id))
    if job is None or job.status != "running" or job.attempt != run.attempt:
        return False  # its dispatcher closes it
    failure = refuse_reason(needed, largest)
    if failure is not None:
        return fail_job(session, job, seen="running", failure=failure, now=now)
    tell_waits_for_room(session, job, needed, held, capacity, now=now)
    return False


def _without(held: Held, runs: list[RunRow]) -> Held:
    return Held(held.gpus - sum(run.gpus for run in runs), held.cpu_runs - sum(run.gpus == 0 for run in runs))
