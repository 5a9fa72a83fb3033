"""A bucket that hangs holds up who asks something of it, and nobody else."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI

from tests.contract.rows import PAIR, add_model, finish, submit, upload
from tests.contract.server import ProjectAccess, Server

MORE_THAN_THREADS = 45
"""Starlette has forty."""

Delete = Callable[[], object]


class HangingDeletes:
    """The store's, until they may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, _key: str) -> None:
        self.begun.set()
        self.may_end.wait(30)


@pytest.fixture
def deletes(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDeletes]:
    hanging = HangingDeletes()
    monkeypatch.setattr(server.store, "delete", hanging)
    yield hanging
    hanging.may_end.set()


def of_a_file(client: OpenAI, _server: Server, _project: ProjectAccess) -> Delete:
    file_id = upload(client)
    return lambda: client.files.delete(file_id)


def of_an_upload(client: OpenAI, _server: Server, _project: ProjectAccess) -> Delete:
    begun = client.uploads.create(bytes=len(PAIR), filename="p.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    client.uploads.parts.create(begun.id, data=PAIR)
    return lambda: client.uploads.cancel(begun.id)


def of_a_model(client: OpenAI, server: Server, project: ProjectAccess) -> Delete:
    job_id = submit(client)
    finish(server.database, job_id)
    name, folder = f"ft:tiny-llama:default:mine:{job_id[-12:]}", f"runs/{job_id}/adapter"
    server.store.write(f"{folder}/adapter_model.safetensors", [b"weights"])
    add_model(server.database, project, job_id, name=name, adapter_key=folder)
    return lambda: client.models.delete(name)


@pytest.mark.parametrize("new_delete", [of_a_file, of_an_upload, of_a_model])
def test_deletes_that_wait_for_the_store_hold_up_nobody_else(
    client: OpenAI,
    server: Server,
    project: ProjectAccess,
    deletes: HangingDeletes,
    new_delete: Callable[[OpenAI, Server, ProjectAccess], Delete],
) -> None:
    acts = [new_delete(client, server, project) for _ in range(MORE_THAN_THREADS)]
    with ThreadPoolExecutor(MORE_THAN_THREADS) as pool:
        asked = [pool.submit(act) for act in acts]
        assert deletes.begun.wait(10)
        time.sleep(0.5)  # for the others to come
        try:
            client.with_options(timeout=5).fine_tuning.jobs.list(limit=1)
        finally:
            deletes.may_end.set()
        assert all(each.result() for each in asked)
