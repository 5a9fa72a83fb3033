"""Run folders of jobs that have ended: what no row names goes.

As long as a job may go on, its checkpoints are its own. Once it has ended, each of its runs keeps its record (spec,
events, outcome) and what files and models lie in it; optimizer states, checkpoints that were not kept, results that
were not published, what a killed trainer left half-written and what a delete has left there go.
"""

from datetime import datetime, timedelta

import structlog

from schemas.ids import JobId
from schemas.run_layout import EVENTS, OUTCOME, SPEC, job_prefix
from service.db.engine import Database
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.tables import JobRow
from service.storage.discard import try_delete
from service.storage.object_store import ObjectStore

BATCH = 5
"""Jobs, of some hundred objects each: a stop of the service waits for one batch."""
KEPT = timedelta(hours=1)
"""After the end of job and processes, which may write until they are gone; and between two tries."""
KEPT_OF_FAILED = timedelta(days=7)
"""For whoever looks into what went wrong: it may have been the service's fault, and the adapter be there."""
RECORD = frozenset({SPEC, EVENTS, OUTCOME})

log = structlog.get_logger()


def sweep_run_folders(database: Database, store: ObjectStore, *, now: datetime) -> int:
    """Return how many jobs were looked at, `BATCH` at most; one whose objects cannot be removed is left for later."""
    with database.read() as session:
        jobs = JobRepository(session).list_with_leftovers(
            before=now - KEPT, failed_before=now - KEPT_OF_FAILED, limit=BATCH
        )
    for job in jobs:
        is_swept = _sweep_job(database, store, job, now=now)
        with database.write() as session:
            to = None if is_swept else now
            JobRepository(session).move_leftovers(JobId(job.id), seen=job.leftovers_since, to=to)
    return len(jobs)


def _sweep_job(database: Database, store: ObjectStore, job: JobRow, *, now: datetime) -> bool:
    """Remove all that can be. False, and the cause in the log: something could not."""
    try:
        unnamed = _list_unnamed(database, store, job, now=now)
    except OSError:
        log.exception("run_folders_not_listed", job_id=job.id)
        return False
    left = [key for key in unnamed if not try_delete(store, key)]
    return not left


def _list_unnamed(database: Database, store: ObjectStore, job: JobRow, *, now: datetime) -> list[str]:
    job_id = JobId(job.id)
    with database.read() as session:
        files = {file.object_key for file in FileRepository(session).list_any(job.result_file_ids, now=now)}
        adapters = tuple(f"{key}/" for key in ModelRepository(session).list_adapter_keys(job_id))
    return [
        key
        for key in store.list_keys(f"{job_prefix(job_id)}/")
        if _is_half_written(key) or not (key in files or key.startswith(adapters) or _is_record(key, job_id))
    ]


def _is_half_written(key: str) -> bool:
    """A trainer in a folder writes under a hidden name beside the object's."""
    return key.rpartition("/")[2].startswith(".")


def _is_record(key: str, job_id: JobId) -> bool:
    _run_id, _, path = key.removeprefix(f"{job_prefix(job_id)}/").partition("/")
    return path.partition("/")[0] in RECORD
