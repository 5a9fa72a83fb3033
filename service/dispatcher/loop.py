"""The dispatcher: one tick validates, launches, reconciles and ingests what there is to do now.

Any number of them may run; each works on the jobs that it holds a lease of, and takes over those of the dead.

A step that raises is logged with its traceback and tried again later; the other jobs go on. What an outage causes
(backend, database, store) is waited for; anything else is a bug, and after `MAX_FAILURES` the job fails with it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.ids import JobId, RunId
from service.backends.backend import BackendUnavailable
from service.db.engine import is_outage
from service.db.jobs import JobRepository
from service.db.runs import OpenRun, RunRepository
from service.db.tables import RunRow
from service.dispatcher.backoff import MAX_FAILURES, Backoff
from service.dispatcher.capacity_watch import CapacityWatch
from service.dispatcher.claim import claim_jobs
from service.dispatcher.cluster_silence import ClusterSilence
from service.dispatcher.context import DispatchContext, JobFailure
from service.dispatcher.launch import (
    LAUNCHES_AT_ONCE,
    is_to_launch,
    look_before_launch,
    mark_submitted,
    start_run,
    stop_if_ended,
)
from service.dispatcher.leases import LeaseLost, fenced_write, give_leases_back, renewing_leases, take_over_orphans
from service.dispatcher.reconcile import interrupt_run, reconcile_run
from service.dispatcher.transitions import fail_job, internal_error_message
from service.dispatcher.validations import Validations
from service.jobs.lifecycle import is_terminal, parse_status

log = structlog.get_logger()

TICK_S = 0.2
OUTAGE_TICK_S = 1.0
LAUNCHING_THREADS = 8
"""A launch mostly waits: for a bucket or a disk, and for the cluster."""


class Dispatcher:
    def __init__(self, context: DispatchContext, validations: Validations, launcher: Executor | None = None) -> None:
        """`launcher` runs what launches wait for."""
        self._context = context
        self._validations = validations
        self._launcher = launcher or ThreadPoolExecutor(LAUNCHING_THREADS, thread_name_prefix="launch")
        self._backoff = Backoff()
        self._capacity_watch = CapacityWatch(context)
        self._cluster_silence = ClusterSilence(context)
        self._stop = threading.Event()
        self._perhaps_late: set[RunId] = set()
        self._is_backend_away = False
        self._is_database_away = False

    def run(self) -> None:
        """Tick until told to stop. The leases stay: `give_back` is for when nothing more is written."""
        with renewing_leases(self._context), self._launcher:
            while not self._stop.is_set():
                self._attempt("tick", self.tick)
                self._stop.wait(OUTAGE_TICK_S if self._is_database_away else TICK_S)

    def stop(self) -> None:
        """End after the step at hand."""
        self._stop.set()

    def tick(self) -> None:
        """Do everything once. Open runs come first: what ends makes room for what waits."""
        with self._context.metrics.dispatcher_tick_seconds.time():
            take_over_orphans(self._context)
            self._validations.start_new()
            self._reconcile(self._open_runs())
            self._attempt("queue", self._claim_all)
            self._stop_late()
            self._attempt("capacity", self._capacity_watch.look_if_due)

    def interrupt_runs(self) -> None:
        """After the backend was stopped with the service: each job goes on at the next start, at no attempt's cost."""
        for each in self._open_runs():
            self._attempt_job(JobId(each.job.id), partial(interrupt_run, self._context, each.job, each.run))

    def give_back(self) -> None:
        """Let other dispatchers go on at once, instead of when the leases expire."""
        with suppress(SQLAlchemyError):
            give_leases_back(self._context)

    def _open_runs(self, *, unsubmitted_alone: bool = False) -> list[OpenRun]:
        with self._context.database.read() as session:
            runs = RunRepository(session)
            return runs.list_open(self._context.dispatcher_id, unsubmitted_alone=unsubmitted_alone)

    def _reconcile(self, runs: list[OpenRun]) -> None:
        to_launch = []
        for each in runs:
            if self._stop.is_set():
                return
            if is_to_launch(self._context, each):
                to_launch.append(each.run)
            else:
                self._attempt_job(JobId(each.job.id), partial(reconcile_run, self._context, each.job, each.run))
        self._launch(to_launch)

    def _claim_all(self) -> None:
        while not self._stop.is_set() and self._claim():
            unsubmitted = self._open_runs(unsubmitted_alone=True)
            self._launch([each.run for each in unsubmitted if is_to_launch(self._context, each)])

    def _claim(self) -> bool:
        with self._cluster_silence.noticed():
            return claim_jobs(self._context)

    def _launch(self, runs: list[RunRow]) -> None:
        for first in range(0, len(runs), LAUNCHES_AT_ONCE):
            if self._stop.is_set():
                return
            self._attempt("launches", partial(self._launch_some, runs[first : first + LAUNCHES_AT_ONCE]))

    def _launch_some(self, runs: list[RunRow]) -> None:
        looked_at, now = look_before_launch(self._context, runs), self._context.clock()
        found = [rows for rows in looked_at if self._backoff.may_try(rows.job.id, now=now)]
        starts = [self._launcher.submit(start_run, self._context, rows.job, rows.run, rows) for rows in found]
        started: set[RunId] = set()

        def note_start(run_id: RunId, start: Future[bool]) -> None:
            if start.result():
                started.add(run_id)

        for rows, start in zip(found, starts, strict=True):
            self._attempt_job(JobId(rows.job.id), partial(note_start, RunId(rows.run.id), start))
        if found:
            self._perhaps_late.update(mark_submitted(self._context, [rows.run for rows in found], started))

    def _stop_late(self) -> None:
        """Those that came to the cluster after their end, so that no row asks for their end any more."""
        for run_id in sorted(self._perhaps_late):
            if self._attempt(run_id, partial(stop_if_ended, self._context, run_id)):
                self._perhaps_late.discard(run_id)

    def _attempt_job(self, job_id: JobId, step: Callable[[], None]) -> None:
        if self._attempt(job_id, step, job_id=job_id):
            self._is_backend_away = False  # the queue's own step may have had nothing to ask the backend

    def _attempt(self, name: str, step: Callable[[], None], *, job_id: JobId | None = None) -> bool:
        """The top of every step: nothing a job does may stop the others. True when it went through."""
        if not self._backoff.may_try(name, now=self._context.clock()):
            return False
        try:
            step()
        except BackendUnavailable as error:
            self._note_backend_away(str(error))
        except LeaseLost:
            log.info("lease_lost", job_id=job_id)
        except Exception as error:  # noqa: BLE001  # logged with its traceback
            if is_outage(error):
                self._note_database_away(error)
            else:
                self._note_failure(job_id, name, error)
        else:
            self._backoff.forget(name)
            self._is_database_away = False
            return True
        return False

    def _note_backend_away(self, reason: str) -> None:
        """Logged once, not at every tick until it is back."""
        if not self._is_backend_away:
            log.warning("backend_unavailable", reason=reason)
        self._is_backend_away = True

    def _note_database_away(self, error: Exception) -> None:
        if not self._is_database_away:
            log.warning("database_unavailable", exc_info=error)
        self._is_database_away = True

    def _note_failure(self, job_id: JobId | None, name: str, error: Exception) -> None:
        is_store_away = isinstance(error, OSError)
        failures = self._backoff.note_failure(name, now=self._context.clock(), is_outage=is_store_away)
        log.error("dispatch_step_failed", step=name, job_id=job_id, failures=failures, exc_info=error)
        if job_id and failures >= MAX_FAILURES and not is_store_away:
            with suppress(SQLAlchemyError, LeaseLost):
                self._give_up(job_id, error)
                self._backoff.forget(name)

    def _give_up(self, job_id: JobId, error: Exception) -> None:
        message = internal_error_message("go on with this job", error)
        with fenced_write(self._context, job_id) as session:
            job = JobRepository(session).find_any(job_id)
            status = parse_status(job.status) if job else None
            if job and status and not is_terminal(status):
                failure = JobFailure("internal_error", message)
                fail_job(session, job, seen=status, failure=failure, now=self._context.clock())
