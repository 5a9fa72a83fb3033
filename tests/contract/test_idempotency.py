"""`Idempotency-Key`: one request, one thing made, however often it is sent."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.contract.rows import PAIR, upload
from tests.contract.server import Server, new_project, openai_client

SENDERS = 6


def fresh_key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


def at_once(act: Callable[[], str]) -> list[str]:
    barrier = Barrier(SENDERS)

    def wait_and_act() -> str:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(SENDERS) as pool:
        return [future.result() for future in [pool.submit(wait_and_act) for _ in range(SENDERS)]]


def test_a_repeated_job_is_the_first_one(client: OpenAI) -> None:
    file_id, headers = upload(client), fresh_key()
    first = client.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id, extra_headers=headers)
    client.fine_tuning.jobs.cancel(first.id)
    again = client.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id, extra_headers=headers)
    assert again == first
    assert len(client.fine_tuning.jobs.list().data) == 1


def test_a_key_with_another_job_is_refused(client: OpenAI) -> None:
    file_id, headers = upload(client), fresh_key()
    client.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id, extra_headers=headers)
    with pytest.raises(openai.ConflictError, match="was used before with another request") as raised:
        client.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id, seed=1, extra_headers=headers)
    assert raised.value.code == "idempotency_key_reused"
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_key_of_a_refused_request_can_be_used_again(client: OpenAI) -> None:
    file_id, headers = upload(client), fresh_key()
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.create(model="unknown", training_file=file_id, extra_headers=headers)
    assert client.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id, extra_headers=headers).id


def test_jobs_sent_at_once_are_one(client: OpenAI) -> None:
    file_id, headers = upload(client), fresh_key()

    def submit() -> str:
        return client.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id, extra_headers=headers).id

    assert len(set(at_once(submit))) == 1
    assert len(client.fine_tuning.jobs.list().data) == 1


def test_uploads_sent_at_once_are_one_and_leave_one_copy(client: OpenAI, server: Server) -> None:
    before, headers = set(server.store.list_keys("files/")), fresh_key()
    [file_id] = set(
        at_once(lambda: client.files.create(file=("a.jsonl", PAIR), purpose="fine-tune", extra_headers=headers).id)
    )
    assert [file.id for file in client.files.list()] == [file_id]
    assert set(server.store.list_keys("files/")) - before == {f"files/{file_id}"}


def test_a_key_with_another_file_is_refused_and_its_bytes_go(client: OpenAI, server: Server) -> None:
    headers = fresh_key()
    client.files.create(file=("a.jsonl", PAIR), purpose="fine-tune", extra_headers=headers)
    before = server.store.list_keys("files/")
    with pytest.raises(openai.ConflictError):
        client.files.create(file=("a.jsonl", PAIR * 2), purpose="fine-tune", extra_headers=headers)
    assert server.store.list_keys("files/") == before


def test_keys_belong_to_a_project_and_name_one_path(client: OpenAI, server: Server) -> None:
    headers = fresh_key()
    file = client.files.create(file=("a.jsonl", PAIR), purpose="fine-tune", extra_headers=headers)
    stranger = openai_client(server, new_project(server.database))
    theirs = stranger.files.create(file=("a.jsonl", PAIR), purpose="fine-tune", extra_headers=headers)
    assert theirs.id != file.id
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.create(model="tiny-llama", training_file=file.id, extra_headers=headers)


@pytest.mark.parametrize("key", ["", "x" * 257, b"a\xffb\x85"])
def test_a_key_that_cannot_be_one_is_refused(http: httpx2.Client, key: str | bytes) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={}, headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["error"]["message"]
