"""From a job's end to its receiver: told if and only if it was committed, until it is heard or three days are over."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from openai import OpenAI

from schemas.ids import JobId, ProjectId
from schemas.webhooks import EVENT_TYPES, CreateWebhookEndpointRequest, WebhookDelivery, WebhookEventType
from service.db.projects import ProjectRepository
from service.db.tables import ProjectRow, WebhookDeliveryRow
from service.webhooks import endpoints
from service.webhooks.endpoints import Webhooks
from service.webhooks.outbox import tell_endpoints
from service.webhooks.post import WebhookPoster
from service.webhooks.sender import CLAIM, WebhookSender
from service.webhooks.signing import WebhookSigner
from tests.inline_executor import InlineExecutor
from tests.lazy_executor import LazyExecutor
from tests.unit.service.dispatcher.scripted_backend import ScriptedBackend
from tests.unit.service.dispatcher.scripted_trainer import whole_run
from tests.unit.service.dispatcher.world import PROJECT, World, open_world
from tests.unit.service.webhooks.receiver import Received, Receiver, receiving

pytestmark = pytest.mark.slow

OTHER_PROJECT = ProjectId("proj_2")


class Post:
    """A world with webhooks, and the sender as `serve` runs it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.webhooks = Webhooks(
            world.context.database, WebhookSigner(b"key"), WebhookPoster(allows_loopback=True), world.clock
        )
        self.sender = self.new_sender()

    def new_sender(self, poster: WebhookPoster | None = None) -> WebhookSender:
        hooks = self.webhooks
        return WebhookSender(hooks.database, hooks.signer, poster or hooks.poster, hooks.clock, lambda: 1.0)

    def listen(self, url: str, *event_types: WebhookEventType, project_id: ProjectId = PROJECT) -> tuple[str, str]:
        """Return the new endpoint's id and secret."""
        request = CreateWebhookEndpointRequest(event_types=[*(event_types or EVENT_TYPES)], name="hook", url=url)
        made = endpoints.create_endpoint(self.webhooks, project_id, request, once_per=None)
        return made.id, made.signing_secret

    def send_all(self) -> None:
        while self.sender.start_next(InlineExecutor()):
            pass

    def cancelled_job(self) -> JobId:
        job_id = self.world.submit()
        self.world.cancel(job_id)
        return job_id

    def deliveries(self, endpoint_id: str) -> list[WebhookDelivery]:
        return endpoints.list_deliveries(self.webhooks, PROJECT, endpoint_id, after=None, limit=100).data


class DyingPoster(WebhookPoster):
    """Is killed once the request is out."""

    def post(self, url: str, *, headers: object, body: bytes) -> int:
        super().post(url, headers=headers, body=body)  # type: ignore[arg-type]
        raise KeyboardInterrupt


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    with open_world(tmp_path, ScriptedBackend(whole_run)) as world:
        yield Post(world)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


def unwrap(received: Received, secret: str) -> object:
    """As a user would; the worlds' clock is ahead of it, so the age is not looked at."""
    with OpenAI(api_key="k") as client:
        client.webhooks.verify_signature(received.body, received.headers, secret=secret, tolerance=10**9)
    return received.body


@pytest.mark.parametrize("end", ["cancelled", "failed", "succeeded"])
def test_the_end_of_a_job_is_told_once_and_signed(post: Post, receiver: Receiver, end: str) -> None:
    endpoint_id, secret = post.listen(receiver.url)
    if end == "cancelled":
        job_id = post.cancelled_job()
    else:
        job_id = post.world.submit(b"not a row\n" if end == "failed" else None)
        post.world.tick_until_ended(job_id)
    assert post.world.job(job_id).status == end
    post.send_all()
    [received] = receiver.received
    unwrap(received, secret)
    [delivery] = post.deliveries(endpoint_id)
    assert delivery.event.type == f"fine_tuning.job.{end}"
    assert delivery.event.data.id == job_id
    assert received.body == delivery.event.model_dump_json().encode()
    assert (delivery.status, delivery.attempts, delivery.next_attempt_at) == ("delivered", 1, None)
    assert delivery.last_attempt is not None
    assert (delivery.last_attempt.status_code, delivery.last_attempt.error) == (200, None)


def test_pausing_and_resuming_is_no_end(post: Post, receiver: Receiver) -> None:
    post.listen(receiver.url)
    job_id = post.world.submit()
    post.world.pause(job_id)
    post.world.resume(job_id)
    post.send_all()
    assert receiver.received == []


def test_only_who_wants_an_event_gets_it(post: Post, receiver: Receiver) -> None:
    post.listen(receiver.url, "fine_tuning.job.succeeded", "fine_tuning.job.failed")
    wanted, _ = post.listen(receiver.url, "fine_tuning.job.cancelled")
    also, _ = post.listen(receiver.url, "fine_tuning.job.cancelled")
    with post.webhooks.database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=OTHER_PROJECT, name="other", created_at=post.world.clock()))
    post.listen(receiver.url, project_id=OTHER_PROJECT)
    post.cancelled_job()
    post.send_all()
    first, second = receiver.received
    assert first.body == second.body, "one event"
    assert first.headers["webhook-id"] != second.headers["webhook-id"], "two messages"
    assert len(post.deliveries(wanted)) == len(post.deliveries(also)) == 1


def test_a_change_that_is_rolled_back_is_not_told(post: Post, receiver: Receiver) -> None:
    post.listen(receiver.url)

    def tell_and_fail() -> None:
        with post.webhooks.database.write() as session:
            tell_endpoints(session, PROJECT, "ftjob-1", status="failed", now=post.world.clock())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tell_and_fail()
    post.send_all()
    assert receiver.received == []


def test_a_sender_that_dies_before_sending_loses_nothing(post: Post, receiver: Receiver) -> None:
    post.listen(receiver.url)
    post.cancelled_job()
    assert post.new_sender().start_next(LazyExecutor())  # and then nothing: it is dead
    post.send_all()
    assert receiver.received == [], "it might still be at work"
    post.world.clock.advance(seconds=CLAIM.total_seconds())
    post.send_all()
    assert len(receiver.received) == 1


def test_a_sender_that_dies_after_sending_repeats_itself_under_the_same_id(post: Post, receiver: Receiver) -> None:
    endpoint_id, _ = post.listen(receiver.url)
    post.cancelled_job()
    assert post.new_sender(DyingPoster(allows_loopback=True)).start_next(InlineExecutor())
    post.world.clock.advance(seconds=CLAIM.total_seconds())
    post.send_all()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert [delivery.status for delivery in post.deliveries(endpoint_id)] == ["delivered"]


def test_a_receiver_that_fails_is_tried_again_until_it_takes_it(post: Post, receiver: Receiver) -> None:
    endpoint_id, secret = post.listen(receiver.url)
    post.cancelled_job()
    receiver.statuses = [500, 302]
    post.send_all()
    [delivery] = post.deliveries(endpoint_id)
    assert delivery.last_attempt is not None
    assert (delivery.status, delivery.last_attempt.status_code) == ("pending", 500)
    assert delivery.last_attempt.error is not None
    for seconds in (5, 20):
        post.send_all()
        post.world.clock.advance(seconds=seconds)
        post.send_all()
    assert [delivery.status for delivery in post.deliveries(endpoint_id)] == ["delivered"]
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    times = [int(received.headers["webhook-timestamp"]) for received in receiver.received]
    assert times == [times[0], times[0] + 5, times[0] + 25]
    for received in receiver.received:
        unwrap(received, secret)


def test_after_three_days_it_is_given_up(post: Post, receiver: Receiver) -> None:
    endpoint_id, _ = post.listen(receiver.url)
    post.cancelled_job()
    receiver.statuses = [503] * 100
    for _ in range(4 * 24):
        post.send_all()
        post.world.clock.advance(seconds=3600)
    [delivery] = post.deliveries(endpoint_id)
    assert (delivery.status, delivery.next_attempt_at) == ("failed", None)
    assert 10 < len(receiver.received) == delivery.attempts < 30


def test_during_a_rotation_old_and_new_secret_verify_and_then_the_new_alone(post: Post, receiver: Receiver) -> None:
    endpoint_id, old = post.listen(receiver.url)
    new = endpoints.rotate_secret(post.webhooks, PROJECT, endpoint_id, keeps_old=True).signing_secret
    post.cancelled_job()
    post.send_all()
    for secret in (old, new):
        unwrap(receiver.received[-1], secret)
    post.world.clock.advance(seconds=24 * 3600)
    post.cancelled_job()
    post.send_all()
    unwrap(receiver.received[-1], new)
    with pytest.raises(ValueError, match="signature"):
        unwrap(receiver.received[-1], old)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(post: Post, receiver: Receiver) -> None:
    endpoint_id, old = post.listen(receiver.url)
    endpoints.rotate_secret(post.webhooks, PROJECT, endpoint_id, keeps_old=False)
    post.cancelled_job()
    post.send_all()
    with pytest.raises(ValueError, match="signature"):
        unwrap(receiver.received[0], old)


def test_a_deleted_endpoint_gets_nothing_more(post: Post, receiver: Receiver) -> None:
    endpoint_id, _ = post.listen(receiver.url)
    post.cancelled_job()
    endpoints.delete_endpoint(post.webhooks, PROJECT, endpoint_id)
    post.send_all()
    assert receiver.received == []
    with post.webhooks.database.read() as session:
        assert session.query(WebhookDeliveryRow).all() == []


def test_another_webhook_key_sends_nothing_and_says_why(post: Post, receiver: Receiver) -> None:
    endpoint_id, _ = post.listen(receiver.url)
    post.cancelled_job()
    hooks = post.webhooks
    WebhookSender(hooks.database, WebhookSigner(b"new key"), hooks.poster, hooks.clock).start_next(InlineExecutor())
    assert receiver.received == []
    [delivery] = post.deliveries(endpoint_id)
    assert delivery.last_attempt is not None
    assert "rotate the secret" in (delivery.last_attempt.error or "")


def test_no_secret_lies_in_the_database(post: Post, receiver: Receiver, tmp_path: Path) -> None:
    endpoint_id, secret = post.listen(receiver.url)
    rotated = endpoints.rotate_secret(post.webhooks, PROJECT, endpoint_id, keeps_old=True).signing_secret
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("db.sqlite3*"))
    assert endpoint_id.encode() in stored
    for text in (secret, rotated):
        assert text.removeprefix("whsec_").encode() not in stored


def test_a_project_whose_endpoint_hangs_holds_up_nobody_else(post: Post, receiver: Receiver) -> None:
    released, stop = threading.Event(), threading.Event()

    class HangingPoster(WebhookPoster):
        def post(self, url: str, *, headers: object, body: bytes) -> int:
            if "hang" in url:
                released.wait(20)
                return 200
            return super().post(url, headers=headers, body=body)  # type: ignore[arg-type]

    with post.webhooks.database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=OTHER_PROJECT, name="other", created_at=post.world.clock()))
    for _ in range(20):
        post.listen(f"{receiver.url}&hang", project_id=OTHER_PROJECT)
    post.listen(receiver.url)
    with post.webhooks.database.write() as session:
        tell_endpoints(session, OTHER_PROJECT, "ftjob-1", status="failed", now=post.world.clock() - timedelta(hours=1))
    post.cancelled_job()
    sender = post.new_sender(HangingPoster(allows_loopback=True))
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    try:
        give_up_at = time.monotonic() + 15
        while not receiver.received:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
    finally:
        stop.set()
        released.set()
        thread.join(20)
    assert not thread.is_alive()
