"""A dispatcher as a process: its tick and its validations are greenlets that any call to the outside may suspend.

Suspended, it is slow, stopped or cut off: the world goes on, and its leases with it, unless its own thread for them
still runs. Killed, nothing of it goes on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from greenlet import getcurrent, greenlet
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from schemas.ids import RunId
from service.backends.backend import BackendUnavailable, Capacity, RunRequest, RunStatus
from service.db.engine import Database
from service.dispatcher.context import DispatchContext
from service.dispatcher.leases import renew_leases
from service.dispatcher.loop import Dispatcher
from service.dispatcher.validations import Validations
from service.files.validation import FileReport, validate_preferences
from service.storage.object_store import StoredObject
from tests.lazy_executor import LazyExecutor
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Crash, Fate, Faults
from tests.simulation.observer import Observer
from tests.simulation.store import MemoryStore, StoreAway

T = TypeVar("T")


def database_away() -> OperationalError:
    return OperationalError("the simulated database is away", None, Exception())


class Process:
    """One dispatcher's process, from its start to its end."""

    def __init__(self, context: DispatchContext, *, faults: Faults, observer: Observer, cluster: Cluster) -> None:
        self.id = context.dispatcher_id
        self.faults = faults
        self.observer = observer
        self.renews_while_suspended = faults.rng.random() < 0.5
        self._hub = getcurrent()
        self._threads: list[greenlet] = []
        self._tick: greenlet | None = None
        self._transactions = 0
        database = FaultyDatabase(context.database, self)
        store = FaultyStore(context.store, self)
        self.context = replace(
            context,
            database=database,
            store=store,
            backend=FaultyBackend(cluster, self),
            validate_file=store.validate,
        )
        validations = Validations(self.context, spawn=self._spawn)
        self.dispatcher = Dispatcher(self.context, validations, LazyExecutor())

    @property
    def is_suspended(self) -> bool:
        return self._tick is not None

    def go_on(self) -> None:
        """Resume what is suspended, or tick. Raises: Crash."""
        for thread in list(self._threads):
            self._switch(thread)
        if self._tick is None:
            self._tick = greenlet(self.dispatcher.tick, parent=self._hub)
        self._switch(self._tick)
        if self._tick.dead:
            self._tick = None

    def run(self, work: Callable[[], None]) -> None:
        """Do something else than a tick, whole, on the main thread. Raises: Crash."""
        main = greenlet(work, parent=self._hub)
        while not main.dead:
            main.switch()

    def renew(self) -> None:
        """What the thread for leases does, which stands still when the whole process does."""
        if not self.is_suspended or self.renews_while_suspended:
            renew_leases(self.context)

    def die(self) -> None:
        for each in [*self._threads, *([self._tick] if self._tick else [])]:
            if not each.dead:
                try:
                    each.throw(Crash)
                except Crash:
                    continue

    def suspend(self) -> None:
        if getcurrent() is not self._hub and self._transactions == 0:
            self._hub.switch()

    def call(self, perform: Callable[[], T], away: Callable[[], Exception], *, changes: bool) -> T:
        """One call to the outside, and its fate."""
        assert self._transactions == 0, "a call to the outside within a transaction"
        fate = self.faults.draw(changes=changes)
        if fate is Fate.CRASH_BEFORE:
            raise Crash
        if fate is Fate.LATE_REQUEST:
            self.suspend()
        if fate is Fate.LOST_REQUEST:
            raise away()
        answer = perform()
        if fate is Fate.TWICE:
            answer = perform()
        if fate is Fate.LATE_ANSWER:
            self.suspend()
        if fate is Fate.LOST_ANSWER:
            raise away()
        if fate is Fate.CRASH_AFTER:
            raise Crash
        return answer

    @contextmanager
    def transaction(self, begin: Callable[[], Iterator[Session]], *, writes: bool) -> Iterator[Session]:
        """A transaction is whole or not there; the answer to its commit may be late or lost."""
        fate = self.faults.draw(changes=writes)
        if fate is Fate.LATE_REQUEST:
            self.suspend()
        if fate is Fate.LOST_REQUEST:
            raise database_away()
        self._transactions += 1
        try:
            with begin() as session:  # type: ignore[attr-defined]
                yield session
                if fate is Fate.CRASH_BEFORE:
                    raise Crash
        finally:
            self._transactions -= 1
        if writes:
            self.observer.look(self.id)
        if fate is Fate.LATE_ANSWER:
            self.suspend()
        if fate is Fate.LOST_ANSWER:
            raise database_away()
        if fate is Fate.CRASH_AFTER:
            raise Crash

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = greenlet(work, parent=self._hub)
        self._threads.append(thread)
        if getcurrent() is self._hub:
            self._switch(thread)

    def _switch(self, thread: greenlet) -> None:
        thread.switch()
        if thread.dead and thread in self._threads:
            self._threads.remove(thread)


class FaultyDatabase:
    def __init__(self, inner: Database, process: Process) -> None:
        self._inner = inner
        self._process = process

    def read(self) -> object:
        return self._process.transaction(self._inner.read, writes=False)

    def write(self) -> object:
        return self._process.transaction(self._inner.write, writes=True)


class FaultyBackend:
    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    def submit(self, request: RunRequest) -> None:
        job_id = request.run_id.rpartition("-")[0]

        def perform() -> None:
            owner = self._process.observer.seen.jobs[job_id].lease_owner
            self._cluster.submit(request, is_late=owner != self._process.id)

        self._call(perform, changes=True)

    def status(self, run_id: RunId) -> RunStatus:
        return self._call(lambda: self._cluster.status(run_id))

    def stop(self, run_id: RunId) -> None:
        self._call(lambda: self._cluster.stop(run_id), changes=True)

    def log_tail(self, run_id: RunId) -> str:
        return self._cluster.log_tail(run_id)

    def capacity(self) -> Capacity:
        return self._call(self._cluster.capacity)

    def _call(self, perform: Callable[[], T], *, changes: bool = False) -> T:
        return self._process.call(perform, lambda: BackendUnavailable("no answer"), changes=changes)


class FaultyStore:
    def __init__(self, inner: MemoryStore, process: Process) -> None:
        self._inner = inner
        self._process = process

    def read(self, key: str) -> bytes:
        return self._call(lambda: self._inner.read(key))

    def write(self, key: str, chunks: list[bytes]) -> StoredObject:
        return self._call(lambda: self._inner.write(key, chunks), changes=True)

    def uri(self, key: str) -> str:
        return self._inner.uri(key)

    def validate(self, key: str) -> FileReport:
        return self._call(lambda: validate_preferences(self._inner.stream(key)))

    def _call(self, perform: Callable[[], T], *, changes: bool = False) -> T:
        return self._process.call(perform, StoreAway, changes=changes)
