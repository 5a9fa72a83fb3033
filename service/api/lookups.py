"""What a request needs from the database before anything else: its key, and of a poll the job's version.

Requests that come while the database is being asked are asked for together by the next transaction. Each is answered
from a state no older than itself, and the more come at once the less each costs.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from schemas.ids import ProjectId
from service.clock import Clock
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.projects import OpenKey, ProjectRepository
from service.errors import Unavailable

AT_ONCE = 2
"""Reads. One whose connection is lost holds up who is in it and not all."""
MOST_TOGETHER = 100
LONGEST_WAIT_S = 15.0
"""As long as a request waits for one of the database's connections, and then some."""


@dataclass(frozen=True, slots=True)
class Lookup:
    key_sha256: str
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    key: OpenKey | None
    job_version: int | None
    """None: the key's project has no such job, or none was asked for."""


_Asked = tuple[Lookup, asyncio.Future[Found]]


class Lookups:
    """Of one event loop."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: list[_Asked] = []
        self._at_work = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, lookup: Lookup) -> Found:
        """Raises: Unavailable; sqlalchemy.exc.SQLAlchemyError."""
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((lookup, answer))
        if self._at_work < AT_ONCE:
            self._at_work += 1
            # Of no request: what is logged there is of all of them.
            task = asyncio.create_task(self._answer_waiting(), context=Context())
            self._tasks.add(task)  # the loop itself holds none
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                return await answer
        except TimeoutError as error:
            raise Unavailable("The database does not answer in time; try again in a moment") from error

    async def _answer_waiting(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                await self._answer([each for each in asked if not each[1].done()])
        finally:
            # In the same turn as the last look: who asks afterwards finds room for a task of its own.
            self._at_work -= 1

    async def _answer(self, asked: Sequence[_Asked]) -> None:
        try:
            found = await run_in_threadpool(self._find_all, [lookup for lookup, _ in asked])
        except Exception as error:  # noqa: BLE001  # each of those who asked has it told
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), each in zip(asked, found, strict=True):
            if not answer.done():  # its client may have gone
                answer.set_result(each)

    def _find_all(self, lookups: Sequence[Lookup]) -> list[Found]:
        job_ids = {lookup.job_id for lookup in lookups if lookup.job_id is not None}
        with self._database.read() as session:
            keys = ProjectRepository(session).find_open_keys({each.key_sha256 for each in lookups}, now=self._clock())
            versions = JobRepository(session).find_versions(job_ids) if job_ids and keys else {}
        return [_found(lookup, keys.get(lookup.key_sha256), versions) for lookup in lookups]


def _found(lookup: Lookup, key: OpenKey | None, versions: Mapping[tuple[ProjectId, str], int]) -> Found:
    if key is None or lookup.job_id is None:
        return Found(key, None)
    return Found(key, versions.get((key.project_id, lookup.job_id)))
