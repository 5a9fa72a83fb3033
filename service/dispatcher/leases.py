"""This dispatcher's leases: taken, renewed, given back, and asked for before each write.

A dispatcher that was stopped, cut off or is slow loses its jobs to others once its lease has run out. It may not know:
so each of its transactions begins with `fenced_write`, which finds out and then writes nothing.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from schemas.ids import JobId
from service.db.engine import is_outage
from service.db.leases import Lease, LeaseRepository
from service.dispatcher.context import DispatchContext

log = structlog.get_logger()

RENEWALS_A_LEASE = 3
TAKE_OVER_AT_ONCE = 50
"""Of a dead dispatcher's jobs; the others that look take the rest."""


class LeaseLost(Exception):
    """The job is another dispatcher's by now, or nobody's."""


@contextmanager
def fenced_write(context: DispatchContext, job_id: JobId) -> Iterator[Session]:
    """One writing transaction on a job that is held to its end. Raises: LeaseLost, before anything is written."""
    with context.database.write() as session:
        if not leases_of(session, context).hold(job_id):
            raise LeaseLost(job_id)
        yield session


def leases_of(session: Session, context: DispatchContext) -> LeaseRepository:
    return LeaseRepository(session, context.dispatcher_id)


def new_lease(context: DispatchContext, now: datetime) -> Lease:
    return Lease(context.dispatcher_id, now + timedelta(seconds=context.lease_s))


def take_over_orphans(context: DispatchContext) -> None:
    """Go on with the runs of dispatchers that are gone."""
    now = context.clock()
    until = new_lease(context, now).until
    with context.database.read() as session:
        if not leases_of(session, context).is_any_orphan(now=now, until=until):
            return
    with context.database.write() as session:
        taken = leases_of(session, context).take_over(now=now, until=until, limit=TAKE_OVER_AT_ONCE)
    if taken:
        log.info("runs_taken_over", count=taken)


def renew_leases(context: DispatchContext) -> None:
    with context.database.write() as session:
        held = leases_of(session, context).renew(until=new_lease(context, context.clock()).until)
    context.metrics.dispatcher_leases.set(held)


def give_leases_back(context: DispatchContext) -> None:
    """Let others go on at once."""
    with context.database.write() as session:
        leases_of(session, context).release_all()
    context.metrics.dispatcher_leases.set(0)


@contextmanager
def renewing_leases(context: DispatchContext) -> Iterator[None]:
    """Renew on a thread of its own: a step may wait for the cluster or the store longer than a lease lasts."""
    stop = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(context, stop), name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _renew_until(context: DispatchContext, stop: threading.Event) -> None:
    while not stop.wait(context.lease_s / RENEWALS_A_LEASE):
        try:
            renew_leases(context)
        except Exception as error:  # the top of its thread; others take over what it cannot renew
            if is_outage(error):
                log.warning("leases_not_renewed", reason=type(error).__name__)
            else:
                log.exception("leases_not_renewed")
