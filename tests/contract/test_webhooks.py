"""`client.webhooks`."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx2
import openai
import pytest
from openai import OpenAI

from service.clock import utc_now
from service.webhooks.sender import WebhookSender
from tests.contract.rows import submit
from tests.contract.server import POSTER, SIGNER, Server, new_project, openai_client
from tests.inline_executor import InlineExecutor
from tests.unit.service.webhooks.receiver import Receiver, receiving

URL = "https://hooks.example.com/dpo"
MORE_THAN_THREADS = 45
"""Starlette has forty."""
ALL = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def sender(server: Server) -> WebhookSender:
    return WebhookSender(server.database, SIGNER, POSTER, utc_now)


def test_an_endpoint_from_its_creation_to_its_end(client: OpenAI) -> None:
    created = client.webhooks.create(name="ours", url=URL, event_types=ALL[:2])  # type: ignore[arg-type]
    assert (created.object, created.name, created.url) == ("webhook_endpoint", "ours", URL)
    assert created.event_types == ALL[:2]
    assert created.signing_secret.startswith("whsec_")
    assert created.signing_secret_hint == f"whsec_…{created.signing_secret[-4:]}"
    found = client.webhooks.retrieve(created.id)
    assert found.model_dump() == created.model_dump(exclude={"signing_secret"})
    changed = client.webhooks.update(created.id, name="theirs", event_types=["fine_tuning.job.failed"])
    assert (changed.name, changed.url, changed.event_types) == ("theirs", URL, ["fine_tuning.job.failed"])
    assert client.webhooks.list().data == [changed]
    assert client.webhooks.delete(created.id).deleted
    with pytest.raises(openai.NotFoundError) as raised:
        client.webhooks.retrieve(created.id)
    assert raised.value.code == "webhook_endpoint_not_found"


def test_the_event_types_there_are(client: OpenAI) -> None:
    assert client.webhooks.event_types.list().data == ALL


def test_the_end_of_a_job_reaches_the_client_typed(client: OpenAI, receiver: Receiver, sender: WebhookSender) -> None:
    secret = client.webhooks.create(name="ours", url=receiver.url, event_types=ALL).signing_secret  # type: ignore[arg-type]
    job_id = submit(client)
    client.fine_tuning.jobs.cancel(job_id)
    while sender.start_next(InlineExecutor()):
        pass
    [received] = receiver.received
    event = client.webhooks.unwrap(received.body, received.headers, secret=secret)
    assert type(event).__name__ == "FineTuningJobCancelledWebhookEvent"
    assert (event.object, event.type, event.data.id) == ("event", "fine_tuning.job.cancelled", job_id)
    assert event.created_at == client.fine_tuning.jobs.retrieve(job_id).finished_at
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(received.body + b" ", received.headers, secret=secret)


def test_deliveries_can_be_looked_at(
    client: OpenAI, http: httpx2.Client, receiver: Receiver, sender: WebhookSender
) -> None:
    endpoint = client.webhooks.create(name="ours", url=receiver.url, event_types=ALL)  # type: ignore[arg-type]
    receiver.statuses = [500]
    job_ids = [submit(client) for _ in range(3)]
    for job_id in job_ids:
        client.fine_tuning.jobs.cancel(job_id)
    while sender.start_next(InlineExecutor()):
        pass
    path = f"/v1/webhook_endpoints/{endpoint.id}/deliveries"
    page = http.get(path, params={"limit": 2}).json()
    assert [each["event"]["data"]["id"] for each in page["data"]] == job_ids[:0:-1]
    assert page["has_more"]
    [oldest] = http.get(path, params={"after": page["data"][-1]["id"]}).json()["data"]
    assert (oldest["status"], oldest["attempts"], oldest["last_attempt"]["status_code"]) == ("pending", 1, 500)
    assert oldest["next_attempt_at"] > oldest["last_attempt"]["at"]
    assert page["data"][0]["status"] == "delivered"


@pytest.mark.parametrize("status", [200, 418])
def test_a_test_says_what_the_endpoint_answers(client: OpenAI, receiver: Receiver, status: int) -> None:
    endpoint = client.webhooks.create(name="ours", url=receiver.url, event_types=ALL)  # type: ignore[arg-type]
    receiver.statuses = [status]
    result = client.webhooks.test(endpoint.id, event_type="fine_tuning.job.succeeded")
    assert (result.success, result.status_code, result.webhook_endpoint_id) == (True, status, endpoint.id)
    [received] = receiver.received
    event = client.webhooks.unwrap(received.body, received.headers, secret=endpoint.signing_secret)
    assert event.type == "fine_tuning.job.succeeded"


def test_a_test_that_reaches_nobody_says_why(client: OpenAI) -> None:
    endpoint = client.webhooks.create(name="ours", url="https://nowhere.invalid/", event_types=ALL)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match=r"nowhere\.invalid does not resolve") as raised:
        client.webhooks.test(endpoint.id, event_type="fine_tuning.job.failed")
    assert (raised.value.code, raised.value.param) == ("webhook_endpoint_unreachable", "url")


def test_tests_that_wait_for_strangers_hold_up_nobody_else(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="ours", url=receiver.url, event_types=ALL)  # type: ignore[arg-type]
    receiver.may_answer.clear()
    with ThreadPoolExecutor(MORE_THAN_THREADS) as pool:
        tests = [
            pool.submit(client.webhooks.test, endpoint.id, event_type="fine_tuning.job.failed")
            for _ in range(MORE_THAN_THREADS)
        ]
        give_up_at = time.monotonic() + 30
        while not receiver.received:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        assert client.with_options(timeout=8).files.list().data == []
        receiver.may_answer.set()
        assert {test.result().status_code for test in tests} == {200}


def test_a_rotated_secret_is_another_and_the_old_one_may_go_on(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="ours", url=receiver.url, event_types=ALL)  # type: ignore[arg-type]
    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != endpoint.signing_secret
    client.webhooks.test(endpoint.id, event_type="fine_tuning.job.failed")
    for secret in (endpoint.signing_secret, rotated.signing_secret):
        client.webhooks.unwrap(receiver.received[-1].body, receiver.received[-1].headers, secret=secret)
    client.webhooks.rotate_secret(endpoint.id)
    client.webhooks.test(endpoint.id, event_type="fine_tuning.job.failed")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(receiver.received[-1].body, receiver.received[-1].headers, secret=rotated.signing_secret)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"url": "http://hooks.example.com/"}, "url", id="http"),
        pytest.param({"url": "https://10.0.0.1/"}, "url", id="inside"),
        pytest.param({"url": "https://[fd00:ec2::254]/"}, "url", id="inside in IPv6"),
        pytest.param({"url": 7}, "url", id="no text"),
        pytest.param({"event_types": []}, "event_types", id="no event"),
        pytest.param({"event_types": ["batch.completed"]}, "event_types.0", id="other event"),
        pytest.param({"name": ""}, "name", id="no name"),
        pytest.param({"secret": "whsec_x"}, "secret", id="unknown"),
    ],
)
def test_a_bad_endpoint_is_refused(http: httpx2.Client, fields: dict[str, object], param: str) -> None:
    good = {"name": "ours", "url": URL, "event_types": ALL}
    answer = http.post("/v1/webhook_endpoints", json=good | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert http.get("/v1/webhook_endpoints").json()["data"] == []


def test_an_update_is_as_strict(client: OpenAI) -> None:
    endpoint = client.webhooks.create(name="ours", url=URL, event_types=ALL)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError) as raised:
        client.webhooks.update(endpoint.id, url="https://169.254.169.254/")
    assert (raised.value.code, raised.value.param) == ("invalid_url", "url")
    assert client.webhooks.update(endpoint.id).updated_at == endpoint.updated_at


def test_pages_of_endpoints_and_their_cap(client: OpenAI) -> None:
    made = [
        client.webhooks.create(name=f"{n}", url=URL, event_types=ALL).id  # type: ignore[arg-type]
        for n in range(20)
    ]
    assert [each.id for each in client.webhooks.list(limit=7)] == made[::-1]
    with pytest.raises(openai.BadRequestError) as raised:
        client.webhooks.create(name="one more", url=URL, event_types=ALL)  # type: ignore[arg-type]
    assert raised.value.code == "too_many_webhook_endpoints"


def test_a_repeated_creation_is_the_first_one(client: OpenAI) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    first, again = (
        client.webhooks.create(name="ours", url=URL, event_types=ALL, extra_headers=headers)  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert first == again
    assert len(client.webhooks.list().data) == 1


def test_anothers_endpoint_is_not_there(client: OpenAI, server: Server) -> None:
    theirs = client.webhooks.create(name="ours", url=URL, event_types=ALL).id  # type: ignore[arg-type]
    stranger = openai_client(server, new_project(server.database))
    attempts: list[Callable[[], object]] = [
        lambda: stranger.webhooks.retrieve(theirs),
        lambda: stranger.webhooks.update(theirs, name="x"),
        lambda: stranger.webhooks.delete(theirs),
        lambda: stranger.webhooks.rotate_secret(theirs),
        lambda: stranger.webhooks.test(theirs, event_type="fine_tuning.job.failed"),
        lambda: stranger.get(f"/webhook_endpoints/{theirs}/deliveries", cast_to=object),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert stranger.webhooks.list().data == []
    assert client.webhooks.retrieve(theirs).name == "ours"
