"""Runs as rows: a new attempt, its end, and the reasons by which an ended one does not count."""

from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import JobId, RunId, run_id
from service.db.committed import tell_on_commit
from service.db.runs import RunRepository
from service.db.tables import JobRow, RunRow
from service.dispatcher.context import DispatchContext
from service.dispatcher.leases import leases_of
from service.dispatcher.requirements import Requirements
from service.telemetry.facts import RunEnded, RunEnding

STOPPED_WITH_SERVICE = "stopped with the service"
STOPPED_FOR_PAUSE = "stopped for a pause"
PREEMPTED = "stopped for another job"
NOT_LOST = frozenset({STOPPED_WITH_SERVICE, STOPPED_FOR_PAUSE, PREEMPTED})
"""What costs the job no attempt."""


def new_run(
    job: JobRow,
    needed: Requirements,
    *,
    attempt: int,
    now: datetime,
    launch_at: datetime | None = None,
    admitted_at: datetime | None = None,
) -> RunRow:
    return RunRow(
        id=run_id(JobId(job.id), attempt=attempt),
        job_id=job.id,
        attempt=attempt,
        project_id=job.project_id,
        model=job.model,
        workers=needed.workers,
        gpus=needed.gpus,
        created_at=now,
        launch_at=launch_at,
        admitted_at=admitted_at,
        submitted_at=None,
        ended_at=None,
        end_reason=None,
        chunks_ingested=0,
    )


def end_run(session: Session, context: DispatchContext, job: JobRow, run: RunRow, *, reason: str) -> None:
    """Close a run that nothing follows on; its job is then nobody's until it is claimed again."""
    close_run(session, job, run, reason=reason, now=context.clock())
    leases_of(session, context).release(JobId(run.job_id))
    context.polls.forget(RunId(run.id))


def close_run(session: Session, job: JobRow, run: RunRow, *, reason: str, now: datetime) -> None:
    """Mark it ended and tell how, once."""
    if RunRepository(session).mark_ended(RunId(run.id), now=now, reason=reason):
        began_at = run.submitted_at or run.created_at
        ending = _ending(job, run, reason)
        tell_on_commit(session, RunEnded(run.id, job.id, ending, began_at, now, job.traceparent))


def _ending(job: JobRow, run: RunRow, reason: str) -> RunEnding:
    match job.status:
        case "succeeded" | "failed" | "cancelled" if job.attempt == run.attempt:
            return job.status
    return "stopped" if reason in NOT_LOST else "lost"
