"""Run folders of jobs that have ended: what no row names goes.

As long as a job may go on, its checkpoints are its own. Once it has ended, each of its runs keeps its record (spec,
events, outcome) and what files and models lie in it; optimizer states, checkpoints that were not kept, results that
were not published and what a delete has left there go.
"""

from datetime import datetime, timedelta

from schemas.ids import JobId
from schemas.run_layout import EVENTS, OUTCOME, SPEC, job_prefix
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.tables import JobRow
from service.storage.object_store import ObjectStore

BATCH = 100
KEPT = timedelta(hours=1)
"""After its job's end, for whoever looks into what went wrong."""
RECORD = frozenset({SPEC, EVENTS, OUTCOME})


def sweep_run_folders(database: Database, store: ObjectStore, *, now: datetime) -> int:
    """Return how many objects were removed, of `BATCH` jobs at most."""
    with database.read() as session:
        jobs = JobRepository(session).list_with_leftovers(before=now - KEPT, limit=BATCH)
    return sum(_sweep_job(database, store, job, now=now) for job in jobs)


def _sweep_job(database: Database, store: ObjectStore, job: JobRow, *, now: datetime) -> int:
    job_id = JobId(job.id)
    with database.read() as session:
        files = {file.object_key for file in FileRepository(session).list_any(job.result_file_ids, now=now)}
        adapters = tuple(f"{key}/" for key in ModelRepository(session).list_adapter_keys(job_id))
    unnamed = [
        key
        for key in store.list_keys(f"{job_prefix(job_id)}/")
        if key not in files and not key.startswith(adapters) and not _is_record(key, job_id)
    ]
    for key in unnamed:
        store.delete(key)
    with database.write() as session:
        JobRepository(session).forget_leftovers(job_id, seen=job.leftovers_since)
    return len(unnamed)


def _is_record(key: str, job_id: JobId) -> bool:
    _run_id, _, path = key.removeprefix(f"{job_prefix(job_id)}/").partition("/")
    return path.partition("/")[0] in RECORD
