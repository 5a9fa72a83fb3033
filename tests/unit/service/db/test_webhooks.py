"""The outbox under several senders at once."""

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest

from schemas.ids import DeliveryId, EndpointId, ProjectId
from service.db.engine import Database
from service.db.tables import WebhookEndpointRow
from service.db.webhooks import Backlog, DeliveryRepository, EndpointRepository
from service.identifiers import new_endpoint_id
from service.telemetry.facts import DeliveryAttempted, Fact
from service.webhooks.endpoints import Webhooks, delete_endpoint
from service.webhooks.outbox import tell_endpoints
from service.webhooks.post import WebhookPoster
from service.webhooks.signing import WebhookSigner
from tests.unit.service.db.rows import NOW

JOBS = 25
SENDERS = 6
CLAIM = timedelta(minutes=1)


@pytest.fixture
def endpoint(database: Database, project_id: ProjectId) -> WebhookEndpointRow:
    row = WebhookEndpointRow(
        id=new_endpoint_id(),
        project_id=project_id,
        name="hook",
        url="https://hooks.example.com/",
        event_types=["fine_tuning.job.failed"],
        secret_seed="key.seed",
        created_at=NOW,
        updated_at=NOW,
    )
    with database.write() as session:
        EndpointRepository(session).add(row)
        for number in range(JOBS):
            tell_endpoints(session, project_id, f"ftjob-{number}", status="failed", now=NOW)
    return row


def claim(
    database: Database, *, after: timedelta = timedelta(0), passing_over: tuple[ProjectId, ...] = ()
) -> str | None:
    now = NOW + after
    with database.write() as session:
        deliveries = DeliveryRepository(session)
        row = deliveries.claim_due(now=now, retry_at=now + CLAIM, passing_over=[*passing_over])
        return row.id if row else None


def claim_all(database: Database) -> list[str]:
    claimed = []
    while (delivery_id := claim(database)) is not None:
        claimed.append(delivery_id)
    return claimed


@pytest.mark.usefixtures("endpoint")
def test_senders_at_once_claim_each_delivery_once(database: Database) -> None:
    with ThreadPoolExecutor(SENDERS) as pool:
        shares = [future.result() for future in [pool.submit(claim_all, database) for _ in range(SENDERS)]]
    claimed = [delivery_id for share in shares for delivery_id in share]
    # A sender that finds the row it chose just taken comes again later: one more round may be due.
    claimed += claim_all(database)
    assert len(claimed) == len(set(claimed)) == JOBS


@pytest.mark.usefixtures("endpoint")
def test_a_claim_that_nobody_made_good_is_due_again(database: Database) -> None:
    first = claim_all(database)
    assert claim(database) is None
    assert claim(database, after=CLAIM) in first


@pytest.mark.usefixtures("endpoint")
def test_a_project_can_be_passed_over(database: Database, project_id: ProjectId) -> None:
    assert claim(database, passing_over=(project_id,)) is None
    assert claim(database, passing_over=(ProjectId("proj_other"),)) is not None


def test_a_late_record_of_an_earlier_attempt_changes_nothing(database: Database, endpoint: WebhookEndpointRow) -> None:
    delivery_id = DeliveryId(claim(database) or "")
    for _ in range(JOBS):
        claim(database, after=CLAIM)  # and with the others this one again
    with database.write() as session:
        DeliveryRepository(session).record_attempt(delivery_id, attempt=1, changes={"status": "failed"})
        page = DeliveryRepository(session).list_after(endpoint.id, after=None, limit=100)
    assert {row.status for row in page} == {"pending"}
    assert max(row.attempts for row in page) == 2


@pytest.mark.usefixtures("endpoint")
def test_an_attempt_is_told_by_how_it_ended_and_a_late_one_not_at_all(database: Database, told: list[Fact]) -> None:
    delivery_id = DeliveryId(claim(database) or "")
    with database.write() as session:
        for status in ("pending", "delivered", "failed"):
            DeliveryRepository(session).record_attempt(delivery_id, attempt=1, changes={"status": status})
        DeliveryRepository(session).record_attempt(delivery_id, attempt=2, changes={"status": "failed"})
    assert told == [DeliveryAttempted("retried"), DeliveryAttempted("delivered"), DeliveryAttempted("failed")]


@pytest.mark.usefixtures("endpoint")
def test_the_backlog_is_what_is_due_and_not_claimed(database: Database) -> None:
    claim(database)
    with database.read() as session:
        deliveries = DeliveryRepository(session)
        assert deliveries.backlog(now=NOW - CLAIM) == Backlog(0, None)
        assert deliveries.backlog(now=NOW) == Backlog(JOBS - 1, NOW)
        assert deliveries.backlog(now=NOW + CLAIM) == Backlog(JOBS, NOW)


def test_only_what_has_ended_long_ago_is_removed(database: Database, endpoint: WebhookEndpointRow) -> None:
    delivery_id = DeliveryId(claim(database) or "")
    with database.write() as session:
        deliveries = DeliveryRepository(session)
        deliveries.record_attempt(delivery_id, attempt=1, changes={"status": "delivered", "next_attempt_at": None})
        assert deliveries.delete_ended(before=NOW, limit=10) == 0
        assert deliveries.delete_ended(before=NOW + timedelta(seconds=1), limit=10) == 1
        assert len(deliveries.list_after(endpoint.id, after=None, limit=100)) == JOBS - 1


def test_an_endpoint_deleted_while_a_job_ends_takes_the_delivery_with_it(
    database: Database, project_id: ProjectId, endpoint: WebhookEndpointRow
) -> None:
    webhooks = Webhooks(database, WebhookSigner(b"key"), WebhookPoster(), lambda: NOW)
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            tell_endpoints(session, project_id, "ftjob-last", status="failed", now=NOW)
            deletion = pool.submit(delete_endpoint, webhooks, project_id, endpoint.id)
            wait([deletion], timeout=0.3)
            assert not deletion.done(), "it waits for the end of the job"
        assert deletion.result(10).deleted
    with database.read() as session:
        assert DeliveryRepository(session).list_after(EndpointId(endpoint.id), after=None, limit=100) == []
