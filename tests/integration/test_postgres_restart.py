"""PostgreSQL goes away and comes back: requests are told to come again, the dispatcher goes on, nothing is lost."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from openai import InternalServerError

from service.db.engine import Database
from service.db.migrate import upgrade
from tests.contract.rows import PAIR
from tests.contract.server import new_project, openai_client, running_server
from tests.integration.serving import wait_until
from tests.postgres import PostgresServer, running_postgres
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import whole_run
from tests.unit.service.dispatcher.world import open_world


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One of its own: the tests beside this one need theirs."""
    with running_postgres() as running:
        migrated = Database(running.url)
        upgrade(migrated.engine)
        migrated.close()
        yield running


def test_requests_get_a_503_until_it_is_back(tmp_path: Path, server: PostgresServer) -> None:
    with running_server(tmp_path, database_url=server.url) as api:
        access = new_project(api.database)
        client = openai_client(api, access)
        file = client.files.create(file=("pairs.jsonl", PAIR), purpose="fine-tune")
        server.stop()
        with pytest.raises(InternalServerError) as away:
            client.files.retrieve(file.id)
        assert away.value.status_code == 503
        assert away.value.response.headers["retry-after"] == "1"
        assert "try again in a moment" in str(away.value)
        assert httpx2.get(f"{api.url}/readyz").status_code == 503
        assert httpx2.get(f"{api.url}/livez").status_code == 200
        server.start()
        assert client.files.retrieve(file.id).id == file.id
        wait_until(lambda: httpx2.get(f"{api.url}/readyz").status_code == 200)  # what was found is told for a second


def test_the_dispatcher_waits_and_goes_on(tmp_path: Path, server: PostgresServer) -> None:
    backend = ScriptedBackend(lambda request: [lambda _: None] * 5 + whole_run(request))  # type: ignore[operator]
    with open_world(tmp_path, backend, max_attempts=1, database_url=server.url) as world:
        job_id = world.submit()
        thread = threading.Thread(target=world.dispatcher.run)
        thread.start()
        try:
            wait_until(lambda: world.job(job_id).status == "running")
            server.stop()
            time.sleep(1.5)
            server.start()
            wait_until(lambda: world.job(job_id).finished_at is not None)
        finally:
            world.dispatcher.stop()
            thread.join()
        assert world.job(job_id).status == "succeeded"
        assert world.steps(job_id) == [1, 2, 3, 4, 5, 6]
        assert world.attempt(job_id) == 1
