"""Several dispatchers race over the queue of one PostgreSQL: each job runs once, nobody passes quota or cluster."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select

from schemas.fine_tuning import CreateJobRequest
from schemas.ids import DispatcherId, FileId, JobId, ProjectId, RunId
from schemas.run_layout import file_key
from service.backends.backend import RunRequest, RunState, RunStatus
from service.clock import utc_now
from service.db.engine import Database
from service.db.events import EventRepository, NewEvent
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.projects import ProjectRepository
from service.db.tables import FileRow, JobRow, ModelRow, ProjectRow, RunEventRow, RunRow
from service.dispatcher.context import DispatchContext
from service.dispatcher.loop import Dispatcher
from service.dispatcher.validations import Validations
from service.identifiers import new_file_id, new_job_id, new_project_id
from service.jobs.hyperparameters import resolve
from service.storage.folder import FolderStore
from tests.integration.serving import wait_until
from tests.postgres import PostgresDatabases
from tests.unit.service.dispatcher.scripted_backend import Action, ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import write_outcome
from tests.unit.service.dispatcher.world import ENTRY, MODEL, pairs

DISPATCHERS = 4
PROJECTS = 5
JOBS = 60
GPUS = 16
MAX_RUNNING = 2
"""Of the first project."""


def run_at_once(_request: RunRequest) -> list[Action]:
    return [write_outcome()]


class CountingBackend(ScriptedBackend):
    """Notes how many runs it held at most, of each project and in all."""

    def __init__(self, project_of: dict[JobId, ProjectId]) -> None:
        super().__init__(run_at_once, gpus=GPUS)
        self._project_of = project_of
        self._lock = threading.Lock()
        self._held: Counter[ProjectId] = Counter()
        self.most: Counter[ProjectId] = Counter()
        self.most_in_all = 0

    def submit(self, request: RunRequest) -> None:
        with self._lock:
            is_new = request.run_id not in self.requests
            super().submit(request)
            if is_new:
                project = self._project_of[JobId(request.run_id.rpartition("-")[0])]
                self._held[project] += 1
                self.most[project] = max(self.most[project], self._held[project])
                self.most_in_all = max(self.most_in_all, self._held.total())

    def status(self, run_id: RunId) -> RunStatus:
        with self._lock:
            before = self._statuses.get(run_id)
            after = super().status(run_id)
            if before is not None and before.state is RunState.RUNNING and after.state is RunState.ENDED:
                self._held[self._project_of[JobId(run_id.rpartition("-")[0])]] -= 1
            return after


@contextmanager
def racing(url: str, store: FolderStore, backend: ScriptedBackend) -> Iterator[list[Dispatcher]]:
    """Each with connections of its own, as processes have."""
    databases = [Database(url) for _ in range(DISPATCHERS)]
    dispatchers = [_dispatcher(number, database, store, backend) for number, database in enumerate(databases, start=1)]
    threads = [threading.Thread(target=dispatcher.run) for dispatcher in dispatchers]
    for thread in threads:
        thread.start()
    try:
        yield dispatchers
    finally:
        for dispatcher in dispatchers:
            dispatcher.stop()
        for thread in threads:
            thread.join()
        for database in databases:
            database.close()


def _dispatcher(number: int, database: Database, store: FolderStore, backend: ScriptedBackend) -> Dispatcher:
    context = DispatchContext(
        database=database,
        store=store,
        validate_file=lambda _: pytest.fail("these jobs are validated"),
        backend=backend,
        registry={MODEL: ENTRY},
        clock=utc_now,
        max_attempts=1,
        dispatcher_id=DispatcherId(f"dispatcher-{number}"),
        lease_s=30.0,
    )
    return Dispatcher(context, Validations(context))


def test_each_job_of_many_is_claimed_once_and_none_is_lost(tmp_path: Path, postgres: PostgresDatabases) -> None:
    url, store = postgres.new_url(), FolderStore(tmp_path / "objects")
    database = Database(url)
    project_of = add_queued_jobs(database, store)
    backend = CountingBackend(project_of)
    with racing(url, store, backend):
        wait_until(lambda: count(database, JobRow.status == "succeeded") == JOBS)
        wait_until(lambda: count(database, JobRow.lease_owner.is_not(None)) == 0)
    first_project = next(iter(project_of.values()))
    assert backend.most[first_project] <= MAX_RUNNING
    assert backend.most_in_all <= GPUS
    assert set(backend.requests) == {f"{job_id}-1" for job_id in project_of}
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(RunRow)) == JOBS
        assert session.scalar(select(func.count()).select_from(ModelRow)) == JOBS
        started = session.scalar(select(func.count()).where(RunEventRow.key == "job:running"))
        owners = session.scalars(select(RunRow.end_reason).distinct()).all()
    assert started == JOBS
    assert owners == ["exit code 0"]
    database.close()


def count(database: Database, condition: object) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(JobRow).where(condition)) or 0  # type: ignore[arg-type]


def add_queued_jobs(database: Database, store: FolderStore) -> dict[JobId, ProjectId]:
    """Jobs of one GPU each, in turn of each project."""
    projects = [new_project_id() for _ in range(PROJECTS)]
    files = {project_id: _add_project(database, store, project_id) for project_id in projects}
    with database.write() as session:
        ProjectRepository(session).lock(projects[0]).max_running_jobs = MAX_RUNNING
    project_of = {}
    for number in range(JOBS):
        project_id = projects[number % PROJECTS]
        project_of[_add_job(database, project_id, files[project_id])] = project_id
    return project_of


def _add_project(database: Database, store: FolderStore, project_id: ProjectId) -> FileId:
    file_id, now = new_file_id(), utc_now()
    stored = store.write(file_key(file_id), [pairs(4)])
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=project_id, name="p", created_at=now))
        FileRepository(session).add(
            FileRow(
                id=file_id,
                project_id=project_id,
                filename="pairs.jsonl",
                purpose="fine-tune",
                object_key=stored.key,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                created_at=now,
            )
        )
    return file_id


def _add_job(database: Database, project_id: ProjectId, file_id: FileId) -> JobId:
    job_id, now = new_job_id(), utc_now()
    request = CreateJobRequest.model_validate({"model": MODEL, "training_file": file_id, "resources": {"gpus": 1}})
    job = JobRow(
        id=job_id,
        project_id=project_id,
        status="queued",
        version=0,
        attempt=0,
        event_count=0,
        created_at=now,
        request=request.model_dump(mode="json"),
        resolved_method=resolve(request.method.dpo, pairs=4, model=ENTRY).method.model_dump(mode="json"),
        model=MODEL,
        training_file_id=file_id,
        training_format="trl_explicit",
        training_pairs=4,
        seed=0,
        gpus=1,
        fine_tuned_model=f"ft:{MODEL}:p::{job_id}",
        result_file_ids=[],
    )
    with database.write() as session:
        JobRepository(session).add(job, metadata={})
        EventRepository(session).append(job_id, [NewEvent("job:created", now, "info", "Created")])
    return job_id
