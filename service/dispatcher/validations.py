"""Validations under way: a few at a time, on threads of their own, so that a large file holds up no running job.

Daemon threads: at the service's end nobody waits for them; each child process ends with its parent, and the job,
still `validating_files`, is taken up again at the next start, or by another dispatcher.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.ids import JobId
from service.db.engine import is_outage
from service.db.jobs import JobRepository
from service.db.tables import JobRow
from service.dispatcher.backoff import MAX_FAILURES, Backoff
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.leases import LeaseLost, leases_of, new_lease
from service.dispatcher.transitions import internal_error_message
from service.dispatcher.validate import refuse_files, validate_job

log = structlog.get_logger()

MAX_AT_ONCE = 2

Spawn = Callable[[Callable[[], None]], None]


def spawn_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="validation", daemon=True).start()


class Validations:
    def __init__(self, context: DispatchContext, spawn: Spawn = spawn_thread) -> None:
        self._context = context
        self._spawn = spawn
        self._backoff = Backoff()
        self._under_way: set[JobId] = set()
        self._lock = threading.Lock()

    def start_new(self) -> None:
        """Begin what waits, oldest first, up to `MAX_AT_ONCE`; jobs that wait for their next try stay leased here."""
        self._take_new()
        with self._context.database.read() as session:
            own = JobRepository(session).list_validating(self._context.dispatcher_id)
        for job in own:
            if self._enter(JobId(job.id)):
                self._spawn(partial(self._validate, job))

    def _take_new(self) -> None:
        with self._lock:
            room = MAX_AT_ONCE - len(self._under_way)
        now = self._context.clock()
        until = new_lease(self._context, now).until
        with self._context.database.read() as session:
            if room == 0 or not leases_of(session, self._context).is_any_new(now=now, until=until):
                return
        with self._context.database.write() as session:
            leases_of(session, self._context).take_new(now=now, until=until, limit=room)

    def _enter(self, job_id: JobId) -> bool:
        with self._lock:
            is_free = job_id not in self._under_way and len(self._under_way) < MAX_AT_ONCE
            if not is_free or not self._backoff.may_try(job_id, now=self._context.clock()):
                return False
            self._under_way.add(job_id)
            return True

    def _validate(self, job: JobRow) -> None:
        """The top of a validation's thread."""
        job_id = JobId(job.id)
        try:
            validate_job(self._context, job_id)
        except LeaseLost:
            log.info("lease_lost", job_id=job_id)
        except Exception as error:  # noqa: BLE001  # logged with its traceback
            if is_outage(error):
                log.warning("validation_put_off", job_id=job_id, reason=type(error).__name__)
            else:
                self._note_failure(job, error)
        else:
            self._backoff.forget(job_id)
        finally:
            with self._lock:
                self._under_way.discard(job_id)

    def _note_failure(self, job: JobRow, error: Exception) -> None:
        is_store_away = isinstance(error, OSError)
        failures = self._backoff.note_failure(job.id, now=self._context.clock(), is_outage=is_store_away)
        log.exception("validation_failed", job_id=job.id, failures=failures)
        if failures >= MAX_FAILURES and not is_store_away:
            failure = JobFailure("internal_error", internal_error_message("validate the files", error))
            with suppress(LeaseLost, SQLAlchemyError):
                refuse_files(self._context, job, failure)
                self._backoff.forget(job.id)
