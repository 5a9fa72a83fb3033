"""A platform in its third year: one real job, cloned by the database itself into as many as wanted."""

import time
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from schemas.fine_tuning import CreateJobRequest
from schemas.ids import JobId, ProjectId
from schemas.run_layout import file_key
from service.api_keys import hash_api_key
from service.clock import utc_now
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow, FileRow, JobRow, ProjectRow, RunEventRow, RunRow, Table
from service.dispatcher.loop import Dispatcher
from service.dispatcher.validations import Validations
from service.identifiers import new_file_id, new_key_id
from service.jobs.submission import Submission, submit_job
from service.storage.folder import FolderStore
from tests.benchmarks.service_load.simulated_cluster import MODEL, REGISTRY, AwayCluster, dispatch_context

KEY = "sk-dpo-benchmark"
PAIRS = b'{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}\n'
VALIDATION_POLL_S = 0.05
LATER_MS = 1_000
"""Between the clones' ids, which tell their times."""
POLLER = ProjectId(f"proj_{1:012x}7{'0' * 19}")
"""The project that polls and pages."""


def add_first_job(database: Database, folder: Path) -> JobId:
    """A project with a key and a queued job, made as users make them."""
    store, now = FolderStore(folder), utc_now()
    file_id = new_file_id()
    stored = store.write(file_key(file_id), [PAIRS])
    with database.write() as session:
        projects = ProjectRepository(session)
        projects.add(ProjectRow(id=POLLER, name="poller", created_at=now))
        projects.add_key(ApiKeyRow(id=new_key_id(), project_id=POLLER, sha256=hash_api_key(KEY), created_at=now))
        file = FileRow(id=file_id, project_id=POLLER, filename="pairs.jsonl", purpose="fine-tune", created_at=now)
        file.object_key, file.size_bytes, file.sha256 = stored.key, stored.size_bytes, stored.sha256
        FileRepository(session).add(file)
    request = CreateJobRequest.model_validate({"model": MODEL, "training_file": file_id})
    job = submit_job(Submission(POLLER, request, None), database=database, registry=REGISTRY, clock=utc_now)
    context = dispatch_context(database, store, folder, AwayCluster())
    dispatcher = Dispatcher(context, Validations(context))
    while _status(database, JobId(job.id)) == "validating_files":
        dispatcher.tick()
        time.sleep(VALIDATION_POLL_S)
    dispatcher.give_back()
    return JobId(job.id)


def clone_job(database: Database, template: JobId, *, projects: int, ended: int, queued: int) -> None:
    """Spread copies of a queued job over as many projects, each with the file; the oldest first."""
    with database.write() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        job = session.get_one(JobRow, template)
        _clone(session, ProjectRow, POLLER, {"id": _project("n")}, first=2, last=projects)
        file = {"id": _file("n"), "project_id": _project("n")}
        _clone(session, FileRow, job.training_file_id, file, first=1, last=projects)
        mine = f"(n % {projects} + 1)"
        copied = {"id": _job("n", before=ended + queued), "project_id": _project(mine), "training_file_id": _file(mine)}
        over = copied | {"status": "'succeeded'", "finished_at": "t.created_at"}
        _clone(session, JobRow, template, over, first=1, last=ended)
        _clone(session, JobRow, template, copied, first=ended + 1, last=ended + queued)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def put_claimed_jobs_back(database: Database) -> int:
    """The queue as before the claims, but for whose turn it was last; returns how many runs there were."""
    back = {"status": "queued", "attempt": 0, "lease_owner": None, "lease_expires_at": None, "started_at": None}
    with database.write() as session:
        session.query(RunEventRow).filter_by(key="job:running").delete()
        session.query(JobRow).filter_by(status="running").update(back | {"event_count": JobRow.event_count - 1})
        return session.query(RunRow).delete()


def _clone(
    session: Session, table: type[Table], template: str, changed: dict[str, str], *, first: int, last: int
) -> None:
    """`changed`: SQL by column, over the clone's number n and the template t."""
    name, columns = table.__tablename__, [column.key for column in table.__table__.columns]
    values = ", ".join(changed.get(column, f"t.{column}") for column in columns)
    statement = f"""
        INSERT INTO {name} ({", ".join(columns)})
        SELECT {values} FROM {name} t, generate_series({first}, {last}) n WHERE t.id = :template
    """  # names and numbers of our own
    session.execute(text(statement), {"template": template})


def _project(number: str) -> str:
    return f"'proj_' || lpad(to_hex({number}), 12, '0') || '7{'0' * 19}'"


def _file(number: str) -> str:
    return f"'file-' || lpad(to_hex({number}), 12, '0') || '7{'0' * 19}'"


def _job(number: str, *, before: int) -> str:
    """An id of the past: the last of `before` clones was made a moment ago."""
    made_ms = f"(extract(epoch from t.created_at) * 1000)::bigint - {LATER_MS} * ({before + 1} - {number})"
    return f"'ftjob-' || lpad(to_hex({made_ms}), 12, '0') || '7' || lpad(to_hex({number}), 19, '0')"


def _status(database: Database, job_id: JobId) -> str:
    with database.read() as session:
        job = JobRepository(session).find_any(job_id)
    assert job is not None
    return job.status
