"""Endpoints under requests at once, and those whose secrets were made under another webhook key than there is now."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.ids import ProjectId
from schemas.webhooks import EVENT_TYPES, CreateWebhookEndpointRequest, WebhookEndpointWithSecret
from service.clock import utc_now
from service.db.engine import Database
from service.db.once import OncePer
from service.db.projects import ProjectRepository
from service.db.tables import ProjectRow
from service.webhooks import endpoints
from service.webhooks.endpoints import MAX_ENDPOINTS, EndpointUnreachable, SecretLost, TooManyEndpoints, Webhooks
from service.webhooks.post import WebhookPoster
from service.webhooks.signing import WebhookSigner
from tests.postgres import PostgresDatabases, wait_until_held_up
from tests.sqlite import new_sqlite_url
from tests.unit.service.webhooks.receiver import receiving

PROJECT = ProjectId("proj_1")
ONCE = OncePer(PROJECT, "key", "0" * 64)
URL = "http://127.0.0.1:1/"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(new_sqlite_url(tmp_path / "dpo.sqlite3"))
    add_the_project(opened)
    yield opened
    opened.close()


def add_the_project(database: Database) -> None:
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=PROJECT, name="default", created_at=utc_now()))


def webhooks_under(key: bytes, database: Database) -> Webhooks:
    return Webhooks(database, WebhookSigner(key), WebhookPoster(allows_loopback=True), utc_now)


def create(webhooks: Webhooks, url: str, *, once_per: OncePer | None = ONCE) -> WebhookEndpointWithSecret:
    request = CreateWebhookEndpointRequest(event_types=[*EVENT_TYPES], name="hook", url=url)
    return endpoints.create_endpoint(webhooks, PROJECT, request, once_per=once_per)


def test_a_rotation_that_keeps_the_old_secret_keeps_none_that_signs_nothing(database: Database) -> None:
    with receiving() as receiver:
        made = create(webhooks_under(b"old", database), receiver.url)
        under_new_key = webhooks_under(b"new", database)
        with pytest.raises(EndpointUnreachable, match="rotate the secret"):
            endpoints.send_test(under_new_key, PROJECT, made.id, "fine_tuning.job.failed")
        endpoints.rotate_secret(under_new_key, PROJECT, made.id, keeps_old=True)
        assert endpoints.send_test(under_new_key, PROJECT, made.id, "fine_tuning.job.failed").success


def test_a_repeated_creation_says_why_its_secret_cannot_be_told(database: Database) -> None:
    made = create(webhooks_under(b"old", database), URL)
    with pytest.raises(SecretLost, match=f"POST /v1/webhook_endpoints/{made.id}/rotate_secret"):
        create(webhooks_under(b"new", database), URL)


@pytest.mark.slow  # PostgreSQL, which runs writers beside each other
def test_of_two_requests_at_once_one_gets_the_last_place(postgres: PostgresDatabases) -> None:
    others: list[Future[object]] = []

    class InterruptedSigner(WebhookSigner):
        def new_seed(self) -> str:
            """Asked for once the endpoints have been counted."""
            others.append(pool.submit(create, webhooks_under(b"key", database), URL, once_per=None))
            wait_until_held_up(database, others[0])
            return super().new_seed()

    with closing(Database(postgres.new_url())) as database, ThreadPoolExecutor(1) as pool:
        add_the_project(database)
        for _ in range(MAX_ENDPOINTS - 1):
            create(webhooks_under(b"key", database), URL, once_per=None)
        create(replace(webhooks_under(b"key", database), signer=InterruptedSigner(b"key")), URL, once_per=None)
        with pytest.raises(TooManyEndpoints):
            others[0].result()
