"""Lookups: together where they come together, and never from before they came."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId
from service.api.lookups import AT_ONCE, Found, Lookup, Lookups
from service.api_keys import hash_api_key
from service.db.engine import Database
from service.db.jobs import JobRepository
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow
from service.identifiers import new_key_id
from tests.sqlite import new_sqlite_url
from tests.unit.service.db.rows import NOW, add_job, add_project

MINE, OTHERS = hash_api_key("mine"), hash_api_key("others")
DEADLINE_S = 10.0


class Gated(Database):
    """Its reads wait to be let in, one by one, and are counted."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads = 0
        self.is_away = False
        self._gate = threading.Semaphore(0)

    def let_in(self, reads: int) -> None:
        self._gate.release(reads)

    @contextmanager
    def read(self) -> Iterator[Session]:
        self.reads += 1
        assert self._gate.acquire(timeout=DEADLINE_S)
        if self.is_away:
            raise OperationalError("away", None, Exception())
        with super().read() as session:
            yield session


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Gated]:
    opened = Gated(new_sqlite_url(tmp_path / "dpo.sqlite3"))
    yield opened
    opened.close()


@pytest.fixture
def job_id(database: Gated) -> JobId:
    """A job of the project of the key `MINE`; `OTHERS` is another project's."""
    mine, others = add_project(database), add_project(database)
    with database.write() as session:
        for project_id, sha256 in ((mine, MINE), (others, OTHERS)):
            row = ApiKeyRow(id=new_key_id(), project_id=project_id, sha256=sha256, created_at=NOW)
            ProjectRepository(session).add_key(row)
    return add_job(database, mine)


def project_of(found: Found) -> ProjectId:
    assert found.key is not None
    return found.key.project_id


async def begun(lookups: Lookups, *asked: Lookup) -> list["asyncio.Task[Found]"]:
    tasks = [asyncio.create_task(lookups.find(lookup)) for lookup in asked]
    await asyncio.sleep(0)
    return tasks


async def until_reading(database: Gated, *, reads: int) -> None:
    while database.reads < reads:
        await asyncio.sleep(0.001)


def test_those_that_come_while_the_database_is_asked_are_answered_by_the_next_read(
    database: Gated, job_id: JobId
) -> None:
    async def ask() -> tuple[list[Found], list[Found]]:
        lookups = Lookups(database, lambda: NOW)
        first = []
        for number in range(AT_ONCE):
            first += await begun(lookups, Lookup(MINE, job_id))
            await until_reading(database, reads=number + 1)
        later = await begun(lookups, Lookup(MINE, job_id), Lookup(OTHERS, job_id), Lookup("unknown"), Lookup(MINE))
        await asyncio.to_thread(change, database, job_id)
        database.let_in(AT_ONCE + 1)
        return await asyncio.gather(*first), await asyncio.gather(*later)

    _, (mine, others, unknown, without_job) = asyncio.run(asyncio.wait_for(ask(), DEADLINE_S))
    assert database.reads == AT_ONCE + 1
    assert (project_of(mine), mine.job_version) == (project_of(without_job), 1)
    assert without_job.job_version is None
    assert project_of(others) != project_of(mine)
    assert others.job_version is None
    assert unknown == Found(None, None)


def test_an_outage_is_told_to_each_that_was_asked_for_and_to_no_other(database: Gated, job_id: JobId) -> None:
    async def ask() -> tuple[list[Found | BaseException], Found]:
        lookups = Lookups(database, lambda: NOW)
        lost = await begun(lookups, Lookup(MINE, job_id), Lookup(OTHERS))
        database.is_away = True
        database.let_in(1)
        answers = await asyncio.gather(*lost, return_exceptions=True)
        database.is_away = False
        database.let_in(1)
        return answers, await lookups.find(Lookup(MINE, job_id))

    lost, found = asyncio.run(asyncio.wait_for(ask(), DEADLINE_S))
    assert [type(answer) for answer in lost] == [OperationalError, OperationalError]
    assert found.job_version == 0


def test_who_gave_up_waiting_takes_nothing_from_the_others(database: Gated, job_id: JobId) -> None:
    async def ask() -> Found:
        gone, stays = await begun(lookups := Lookups(database, lambda: NOW), Lookup(OTHERS), Lookup(MINE, job_id))
        await until_reading(database, reads=1)
        gone.cancel()
        database.let_in(2)
        assert project_of(await lookups.find(Lookup(MINE))) == project_of(await stays)
        return await stays

    assert asyncio.run(asyncio.wait_for(ask(), DEADLINE_S)).job_version == 0


def change(database: Database, job_id: JobId) -> None:
    with database.write() as session:
        assert JobRepository(session).advance(job_id, seen="queued", to="running")
