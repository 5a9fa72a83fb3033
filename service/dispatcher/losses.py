"""How often a job has lost its run without getting on in between: a host that restarts each night may go on so."""

from sqlalchemy.orm import Session

from schemas.ids import JobId
from schemas.run_record import RESUMED
from service.db.events import EventRepository
from service.db.runs import RunRepository
from service.dispatcher.run_rows import NOT_LOST

Point = tuple[bool, int]
"""Whether the run was past the phase that estimates the reference, and the step of its checkpoint."""
START: Point = (False, 0)


def count_lost(session: Session, job_id: JobId) -> int:
    """Return the runs lost since one went on from further than all before it, that one's own loss included."""
    points = dict(map(_resumed_at, EventRepository(session).list_keys(job_id, beginning=RESUMED)))
    furthest, lost = START, 0
    for run in reversed(RunRepository(session).list_of_job(job_id)):
        point = points.get(run.id, START)
        if point > furthest:
            furthest, lost = point, 0
        lost += run.end_reason not in NOT_LOST
    return lost


def _resumed_at(key: str) -> tuple[str, Point]:
    """From `resumed:RUN_ID:STEP` or `resumed:RUN_ID:sft:STEP`, of which a run tells one."""
    run_id, *phase, step = key.removeprefix(RESUMED).split(":")
    return run_id, (not phase, int(step))
