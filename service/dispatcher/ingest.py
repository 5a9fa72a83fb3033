"""Read a run's new event chunks into the database, each chunk in one transaction.

Effectively once: the run's count of chunks is compared and set, and an event's key is kept once per job, so a crash
anywhere, a second dispatcher or a resumed run repeats nothing. Fenced: a run that is no longer its job's own adds none,
but for what its successor goes on from: a node that was cut off still writes after its run was given up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from pydantic import ValidationError
from sqlalchemy.orm import Session

from schemas.ids import JobId, RunId
from schemas.run_layout import event_chunk, run_prefix
from schemas.run_record import RESUMED, RunEvent
from service.db.committed import tell_on_commit
from service.db.events import EventRepository
from service.db.jobs import JobRepository
from service.db.runs import RunRepository
from service.db.tables import JobRow, RunRow
from service.dispatcher.checkpoint_rows import add_checkpoint
from service.dispatcher.context import DispatchContext
from service.dispatcher.leases import fenced_write
from service.dispatcher.run_events import damaged_chunk_event, job_event
from service.dispatcher.steps import observed
from service.storage.object_store import ObjectNotFound
from service.telemetry.facts import EventsIngested


@dataclass(frozen=True, slots=True)
class Chunk:
    number: int
    events: tuple[RunEvent, ...]
    damage: str | None
    """What is wrong with its first unreadable line."""


def ingest_chunks(context: DispatchContext, job: JobRow, run: RunRow) -> bool:
    """Take every whole chunk that is there. True: there was one. Raises: LeaseLost."""
    has_news = False
    for chunk in _read_new(context, job, run):
        has_news = True
        if any(event.key.startswith(RESUMED) for event in chunk.events):
            _ingest_left_behind(context, job, run)
        if not _ingest_chunk(context, job, run, chunk, attempt=run.attempt):
            break
    return has_news


def _ingest_left_behind(context: DispatchContext, job: JobRow, run: RunRow) -> None:
    """Take what earlier runs told since they were given up; all that led to the checkpoint resumed is there by now."""
    with context.database.read() as session:
        earlier = [row for row in RunRepository(session).list_of_job(JobId(job.id)) if row.attempt < run.attempt]
    for former in reversed(earlier):
        for chunk in _read_new(context, job, former):
            if not _ingest_chunk(context, job, former, chunk, attempt=run.attempt):
                return


def _read_new(context: DispatchContext, job: JobRow, run: RunRow) -> Iterator[Chunk]:
    prefix = run_prefix(JobId(job.id), RunId(run.id))
    for number in count(run.chunks_ingested + 1):
        try:
            data = context.store.read(f"{prefix}/{event_chunk(number)}")
        except ObjectNotFound:
            return
        yield parse_chunk(number, data)


@observed("ingest")
def _ingest_chunk(context: DispatchContext, job: JobRow, run: RunRow, chunk: Chunk, *, attempt: int) -> bool:
    """False: somebody else took it, or the attempt is not its job's own any more. Raises: LeaseLost."""
    now = context.clock()
    with fenced_write(context, JobId(job.id)) as session:
        if not _add_chunk(session, job, run, chunk, attempt=attempt, now=now):
            return False
        lags_s = tuple(max(0.0, now.timestamp() - event.created_at) for event in chunk.events)
        tell_on_commit(session, EventsIngested(lags_s))
    return True


def parse_chunk(number: int, data: bytes) -> Chunk:
    """Keep the lines that can be read; a damaged one is told, once, and not waited for."""
    events: list[RunEvent] = []
    damage: str | None = None
    for line_number, line in enumerate(data.splitlines(), 1):
        try:
            events.append(RunEvent.model_validate_json(line))
        except ValidationError as error:
            damage = damage or f"line {line_number}: {error.errors()[0]['msg']}"
    return Chunk(number, tuple(events), damage)


def _add_chunk(session: Session, job: JobRow, run: RunRow, chunk: Chunk, *, attempt: int, now: datetime) -> bool:
    """`attempt`: the job's own, by which the writing is fenced."""
    job_id, run_id = JobId(job.id), RunId(run.id)
    if not RunRepository(session).advance_chunks(run_id, seen=chunk.number - 1, to=chunk.number):
        return False
    jobs = JobRepository(session)
    if not jobs.update_unended(job_id, attempt=attempt, changes={}):
        return False
    estimate = _estimate_finish(chunk)
    if estimate is not None:  # a paused job has none, though its run may still tell a step
        jobs.update_running(job_id, attempt=attempt, changes={"estimated_finish_at": estimate})
    events = [job_event(event) for event in chunk.events]
    if chunk.damage:
        events.append(damaged_chunk_event(run_id, chunk.number, chunk.damage, now=now))
    EventRepository(session).append(job_id, events)
    for event in chunk.events:
        if event.checkpoint:
            created_at = datetime.fromtimestamp(event.created_at, UTC)
            add_checkpoint(session, job, run_id, event.checkpoint, created_at=created_at)
    return True


def _estimate_finish(chunk: Chunk) -> datetime | None:
    """From the mean time of the chunk's steps, or as its last step before DPO tells it; None when it tells no step."""
    steps = [(event.created_at, event.step_metrics) for event in chunk.events if event.step_metrics]
    if not steps:
        return _estimate_from_sft(chunk)
    mean_s = sum(metrics.step_seconds for _, metrics in steps) / len(steps)
    told_at, last = steps[-1]
    return datetime.fromtimestamp(told_at, UTC) + timedelta(seconds=mean_s * (last.total_steps - last.step))


def _estimate_from_sft(chunk: Chunk) -> datetime | None:
    steps = [(event.created_at, event.sft_metrics) for event in chunk.events if event.sft_metrics]
    if not steps:
        return None
    told_at, last = steps[-1]
    return datetime.fromtimestamp(told_at, UTC) + timedelta(seconds=last.seconds_left)
