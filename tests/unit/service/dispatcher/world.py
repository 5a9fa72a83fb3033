"""A real SQLite, a real folder store and a scripted cluster, with jobs submitted as the API does it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from schemas.fine_tuning import CreateJobRequest, FineTuningJob, JobEvent
from schemas.ids import DispatcherId, FileId, JobId, ProjectId
from schemas.run_layout import file_key
from service.db.checkpoints import CheckpointRepository
from service.db.engine import Database
from service.db.events import EventRepository
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, ProjectRow, RunRow
from service.dispatcher.context import DispatchContext
from service.dispatcher.loop import Dispatcher
from service.dispatcher.validations import Validations
from service.files.validation import validate_preferences
from service.identifiers import new_file_id
from service.jobs.control import cancel_job, pause_job, resume_job
from service.jobs.presentation import present_event, present_job
from service.jobs.submission import Submission, submit_job
from service.registry import BaseModelEntry
from service.storage.folder import FolderStore
from service.telemetry.facts import Tell, tell_nobody
from tests.lazy_executor import LazyExecutor
from tests.sqlite import new_sqlite_url
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend

PROJECT = ProjectId("proj_1")
DISPATCHER = DispatcherId("dispatcher-1")
LEASE_S = 30.0
MODEL = "tiny"
ENTRY = BaseModelEntry(uri="/models/tiny", max_length=512, base_learning_rate=1e-3, precision="fp32", gpus=0)
START = datetime(2030, 1, 1, tzinfo=UTC)


class MovableClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, *, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def watch_only(_world: "World", _job_id: JobId) -> None:
    """What most users do."""


@dataclass(slots=True)
class World:
    context: DispatchContext
    backend: ScriptedBackend
    clock: MovableClock
    dispatcher: Dispatcher

    def restart(self, context: DispatchContext | None = None) -> None:
        """A new dispatcher over what the old one left."""
        self.dispatcher = _dispatcher(context or self.context)

    def tick(self, *, times: int = 1) -> None:
        for _ in range(times):
            self.dispatcher.tick()
            self.clock.advance(seconds=0.2)

    def tick_until_ended(
        self, job_id: JobId, *, limit: int = 120, user: "Callable[[World, JobId], None]" = watch_only
    ) -> FineTuningJob:
        for _ in range(limit):
            self.tick()
            user(self, job_id)
            if self.job(job_id).status in ("succeeded", "failed", "cancelled") and not self.open_runs():
                return self.job(job_id)
        raise AssertionError(f"{self.job(job_id)} has not ended; open runs: {self.open_runs()}")

    def upload(self, content: bytes) -> FileId:
        file_id = new_file_id()
        stored = self.context.store.write(file_key(file_id), [content])
        with self.context.database.write() as session:
            FileRepository(session).add(
                FileRow(
                    id=file_id,
                    project_id=PROJECT,
                    filename="pairs.jsonl",
                    purpose="fine-tune",
                    object_key=stored.key,
                    size_bytes=stored.size_bytes,
                    sha256=stored.sha256,
                    created_at=self.clock(),
                    expires_at=None,
                )
            )
        return file_id

    def submit(self, content: bytes | None = None, **fields: object) -> JobId:
        training_file = self.upload(pairs(4) if content is None else content)
        request = CreateJobRequest.model_validate({"model": MODEL, "training_file": training_file, **fields})
        submission = Submission(PROJECT, request, None)
        context = self.context
        job = submit_job(submission, database=context.database, registry=context.registry, clock=context.clock)
        return JobId(job.id)

    def delete_file(self, file_id: str) -> None:
        with self.context.database.write() as session:
            FileRepository(session).delete(PROJECT, FileId(file_id))

    def cancel(self, job_id: JobId) -> None:
        cancel_job(PROJECT, job_id, database=self.context.database, clock=self.clock)

    def pause(self, job_id: JobId) -> FineTuningJob:
        return pause_job(PROJECT, job_id, database=self.context.database, clock=self.clock)

    def resume(self, job_id: JobId) -> FineTuningJob:
        return resume_job(PROJECT, job_id, database=self.context.database, clock=self.clock)

    def job(self, job_id: JobId) -> FineTuningJob:
        with self.context.database.read() as session:
            row = JobRepository(session).find_any(job_id)
            assert row is not None
            return present_job(row)

    def attempt(self, job_id: JobId) -> int:
        with self.context.database.read() as session:
            row = JobRepository(session).find_any(job_id)
            assert row is not None
            return row.attempt

    def events(self, job_id: JobId) -> list[JobEvent]:
        """Oldest first."""
        with self.context.database.read() as session:
            rows = EventRepository(session).list_after(job_id, after=None, limit=1000)
            assert rows is not None
            assert [row.seq for row in reversed(rows)] == list(range(1, len(rows) + 1))
            return [present_event(row) for row in reversed(rows)]

    def messages(self, job_id: JobId) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def steps(self, job_id: JobId) -> list[object]:
        return [event.data["step"] for event in self.events(job_id) if event.data]

    def open_runs(self) -> list[RunRow]:
        with self.context.database.read() as session:
            query = select(RunRow).where(RunRow.ended_at.is_(None)).order_by(RunRow.id)
            return list(session.scalars(query))

    def model_names(self) -> list[str]:
        with self.context.database.read() as session:
            return sorted(model.name for model in ModelRepository(session).list_of_project(PROJECT))

    def result_files(self) -> list[FileRow]:
        with self.context.database.read() as session:
            return FileRepository(session).list_after(
                PROJECT, after=None, limit=100, purpose="fine-tune-results", newest_first=False, now=self.clock()
            )

    def checkpoint_steps(self, job_id: JobId) -> list[int]:
        with self.context.database.read() as session:
            return [row.step for row in CheckpointRepository(session).list_after(job_id, after=None, limit=100)]


@contextmanager
def open_world(
    folder: Path,
    backend: ScriptedBackend,
    *,
    max_attempts: int = 3,
    database_url: str | None = None,
    tell: Tell = tell_nobody,
) -> Iterator[World]:
    clock = MovableClock()
    store = FolderStore(folder / "objects")
    database = Database(database_url or new_sqlite_url(folder / "db.sqlite3"), tell=tell)
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=PROJECT, name="default", created_at=clock()))
    context = DispatchContext(
        database=database,
        store=store,
        validate_file=lambda key: validate_preferences(store.stream(key)),
        backend=backend,
        registry={MODEL: ENTRY},
        clock=clock,
        max_attempts=max_attempts,
        dispatcher_id=DISPATCHER,
        lease_s=LEASE_S,
    )
    try:
        yield World(context, backend, clock, _dispatcher(context))
    finally:
        database.close()


def with_parts(context: DispatchContext, **parts: object) -> DispatchContext:
    return replace(context, **parts)  # type: ignore[arg-type]


def pairs(count: int, *, equal: int = 0) -> bytes:
    rows = [
        {"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "Yes." if n < equal else "No."} for n in range(count)
    ]
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _dispatcher(context: DispatchContext) -> Dispatcher:
    return Dispatcher(context, Validations(context, spawn=_at_once), LazyExecutor())


def _at_once(work: Callable[[], None]) -> None:
    work()
