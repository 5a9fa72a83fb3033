"""How often a job has lost its run without getting on in between: a host that restarts each night may go on so."""

from sqlalchemy.orm import Session

from schemas.ids import JobId
from service.db.events import EventRepository
from service.db.runs import RunRepository
from service.db.tables import RunRow
from service.dispatcher.run_rows import NOT_LOST

STEPS = ("step:", "sft:")
"""How the keys of a trainer's steps begin. A step that a resumed run tells again is no event."""


def lost_key(run_id: str) -> str:
    """The key of the event that tells of a run's loss."""
    return f"run:{run_id}:lost"


def count_lost(session: Session, run: RunRow) -> int:
    """Return the runs lost since the job's furthest step, this one included, which is lost now."""
    job_id = JobId(run.job_id)
    told = set(EventRepository(session).list_keys_since(job_id, last=STEPS, beginning="run:"))
    return 1 + sum(
        lost_key(former.id) in told and former.end_reason not in NOT_LOST
        for former in RunRepository(session).list_of_job(job_id)
        if former.id != run.id
    )
