"""Endpoints whose secrets were made under another webhook key than the service has now."""

from collections.abc import Iterator
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
from service.webhooks.endpoints import EndpointUnreachable, SecretLost, Webhooks
from service.webhooks.post import WebhookPoster
from service.webhooks.signing import WebhookSigner
from tests.sqlite import new_sqlite_url
from tests.unit.service.webhooks.receiver import receiving

PROJECT = ProjectId("proj_1")
ONCE = OncePer(PROJECT, "key", "0" * 64)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(new_sqlite_url(tmp_path / "dpo.sqlite3"))
    with opened.write() as session:
        ProjectRepository(session).add(ProjectRow(id=PROJECT, name="default", created_at=utc_now()))
    yield opened
    opened.close()


def webhooks_under(key: bytes, database: Database) -> Webhooks:
    return Webhooks(database, WebhookSigner(key), WebhookPoster(allows_loopback=True), utc_now)


def create(webhooks: Webhooks, url: str) -> WebhookEndpointWithSecret:
    request = CreateWebhookEndpointRequest(event_types=[*EVENT_TYPES], name="hook", url=url)
    return endpoints.create_endpoint(webhooks, PROJECT, request, once_per=ONCE)


def test_a_rotation_that_keeps_the_old_secret_keeps_none_that_signs_nothing(database: Database) -> None:
    with receiving() as receiver:
        made = create(webhooks_under(b"old", database), receiver.url)
        under_new_key = webhooks_under(b"new", database)
        with pytest.raises(EndpointUnreachable, match="rotate the secret"):
            endpoints.send_test(under_new_key, PROJECT, made.id, "fine_tuning.job.failed")
        endpoints.rotate_secret(under_new_key, PROJECT, made.id, keeps_old=True)
        assert endpoints.send_test(under_new_key, PROJECT, made.id, "fine_tuning.job.failed").success


def test_a_repeated_creation_says_why_its_secret_cannot_be_told(database: Database) -> None:
    made = create(webhooks_under(b"old", database), "http://127.0.0.1:1/")
    with pytest.raises(SecretLost, match=f"POST /v1/webhook_endpoints/{made.id}/rotate_secret"):
        create(webhooks_under(b"new", database), "http://127.0.0.1:1/")
