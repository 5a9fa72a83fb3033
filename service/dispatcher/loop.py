"""The dispatcher: one tick validates, launches, reconciles and ingests what there is to do now.

A step that raises is logged with its traceback and tried again later; the other jobs go on. What an outage causes
(backend, database, store) is waited for; anything else is a bug, and after `MAX_FAILURES` the job fails with it.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog
from sqlalchemy.exc import OperationalError

from schemas.ids import JobId
from service.backends.backend import BackendUnavailable
from service.db.jobs import JobRepository
from service.db.runs import RunRepository
from service.db.tables import RunRow
from service.dispatcher.backoff import MAX_FAILURES, Backoff
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.launch import claim_next_job
from service.dispatcher.reconcile import interrupt_run, reconcile_run
from service.dispatcher.transitions import fail_job
from service.dispatcher.validations import Validations
from service.jobs.lifecycle import is_terminal, parse_status

log = structlog.get_logger()

TICK_S = 0.2
OUTAGES = (BackendUnavailable, OperationalError, OSError)


class Dispatcher:
    def __init__(self, context: DispatchContext, validations: Validations) -> None:
        self._context = context
        self._validations = validations
        self._backoff = Backoff()
        self._is_backend_away = False

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop."""
        while not stop.is_set():
            self._attempt(None, self.tick)
            stop.wait(TICK_S)

    def tick(self) -> None:
        """Do everything once. Open runs come first: what ends makes room for what waits."""
        self._validations.start_new()
        for run in self._open_runs():
            self._attempt(JobId(run.job_id), partial(reconcile_run, self._context, run))
        self._attempt(None, self._claim_all)

    def interrupt_runs(self) -> None:
        """After the backend was stopped with the service: each job goes on at the next start, at no attempt's cost."""
        for run in self._open_runs():
            self._attempt(JobId(run.job_id), partial(interrupt_run, self._context, run))

    def _open_runs(self) -> list[RunRow]:
        with self._context.database.read() as session:
            return RunRepository(session).list_open()

    def _claim_all(self) -> None:
        while claim_next_job(self._context):
            for run in self._open_runs():
                if run.submitted_at is None:
                    self._attempt(JobId(run.job_id), partial(reconcile_run, self._context, run))

    def _attempt(self, job_id: JobId | None, step: Callable[[], None]) -> None:
        """The top of every step: nothing a job does may stop the others."""
        name = job_id or "queue"
        if not self._backoff.may_try(name, now=self._context.clock()):
            return
        try:
            step()
        except BackendUnavailable as error:
            self._note_backend_away(str(error))
        except Exception as error:  # noqa: BLE001  # logged with its traceback
            self._note_failure(job_id, name, error)
        else:
            self._backoff.note_success(name)
            if job_id:  # the queue's own step may have had nothing to ask the backend
                self._is_backend_away = False

    def _note_backend_away(self, reason: str) -> None:
        """Logged once, not at every tick until it is back."""
        if not self._is_backend_away:
            log.warning("backend_unavailable", reason=reason)
        self._is_backend_away = True

    def _note_failure(self, job_id: JobId | None, name: str, error: Exception) -> None:
        failures = self._backoff.note_failure(name, now=self._context.clock())
        log.exception("dispatch_step_failed", job_id=job_id, failures=failures)
        if job_id and failures >= MAX_FAILURES and not isinstance(error, OUTAGES):
            with suppress(OperationalError):
                self._give_up(job_id, error)

    def _give_up(self, job_id: JobId, error: Exception) -> None:
        message = f"The service could not go on with this job: {type(error).__name__}: {error}"[:1000]
        with self._context.database.write() as session:
            job = JobRepository(session).find_any(job_id)
            status = parse_status(job.status) if job else None
            if job and status and not is_terminal(status):
                failure = JobFailure("internal_error", message)
                fail_job(session, job, seen=status, failure=failure, now=self._context.clock())
