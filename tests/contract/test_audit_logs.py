"""`client.admin.organization.audit_logs`: each change leaves an entry, with who did it."""

from datetime import timedelta
from typing import get_args

import openai
import pytest
from openai.resources.admin.organization import Organization
from openai.types.admin.organization import AuditLogListResponse
from sqlalchemy import select

from schemas.audit_event_types import AskedEventType
from service.clock import utc_now
from service.db.tables import AdminKeyRow, AuditLogRow
from tests.contract.server import Server


@pytest.fixture(autouse=True)
def nothing_before(server: Server) -> None:
    with server.database.write() as session:
        session.query(AuditLogRow).delete()


def test_each_change_is_told_with_its_actor_project_and_details(organization: Organization, server: Server) -> None:
    project = organization.projects.create(name="Team A")
    organization.projects.update(project.id, name="Team B")
    accounts = organization.projects.service_accounts
    account = accounts.create(project.id, name="ci")
    assert account.api_key is not None
    accounts.update(account.id, project_id=project.id, name="deploy")
    organization.projects.api_keys.update(account.api_key.id, project_id=project.id, scopes=["api.all.read"])
    organization.projects.api_keys.delete(account.api_key.id, project_id=project.id)
    organization.projects.rate_limits.update_rate_limit("rl-*", project_id=project.id, max_requests_per_1_minute=9)
    accounts.delete(account.id, project_id=project.id)
    organization.projects.archive(project.id)
    second = organization.admin_api_keys.create(name="second")
    organization.admin_api_keys.delete(second.id)

    entries = list(organization.audit_logs.list(limit=4))[::-1]
    assert [entry.type for entry in entries] == [
        "project.created",
        "project.updated",
        "service_account.created",
        "api_key.created",
        "service_account.updated",
        "api_key.updated",
        "api_key.deleted",
        "rate_limit.updated",
        "service_account.deleted",
        "project.archived",
        "api_key.created",
        "api_key.deleted",
    ]
    with server.database.read() as session:
        actor = session.scalars(select(AdminKeyRow).where(AdminKeyRow.name == "tests")).one().id
    for entry in entries:
        assert entry.actor is not None
        assert entry.actor.api_key is not None
        assert entry.actor.api_key.id == actor
        told = entry.to_dict()
        filled = [name for name in told if "." in name and told[name] is not None]
        assert filled == [entry.type]
    assert [entry.project and entry.project.name for entry in entries] == ["Team A", *["Team B"] * 9, None, None]
    created, updated, _, key_created, *_, limited, _, _, admin_created, _ = entries
    assert created.project_created is not None
    assert (created.project_created.id, created.project_created.data.title) == (project.id, "Team A")  # type: ignore[union-attr]
    assert updated.project_updated.changes_requested.title == "Team B"  # type: ignore[union-attr]
    assert key_created.api_key_created.id == account.api_key.id  # type: ignore[union-attr]
    assert limited.rate_limit_updated.changes_requested.max_requests_per_1_minute == 9  # type: ignore[union-attr]
    assert admin_created.api_key_created.id == second.id  # type: ignore[union-attr]
    assert account.api_key.value not in str([entry.to_dict() for entry in entries])
    assert second.value not in str([entry.to_dict() for entry in entries])


def test_a_changed_project_tells_what_is_new_alone(organization: Organization) -> None:
    project = organization.projects.create(name="Team A", extra_body={"quotas": {"max_gpus": 8}})

    def change(**fields: object) -> None:
        organization.projects.update(project.id, extra_body=fields)

    change(quotas={"max_gpus": 4, "max_queued_jobs": None})
    change(name="Team A", quotas={"max_gpus": None})
    change(name="Team B", quotas={"max_gpus": None})
    change(name="Team B")
    entries = organization.audit_logs.list(event_types=["project.updated"]).to_dict()["data"]
    told = [entry["project.updated"]["changes_requested"] for entry in entries]  # type: ignore[index,attr-defined]
    assert told == [{"title": "Team B"}, {"quotas": {"max_gpus": None}}, {"quotas": {"max_gpus": 4}}]


def test_the_log_is_searched(organization: Organization) -> None:
    one, two = (organization.projects.create(name=name) for name in ("one", "two"))
    organization.projects.archive(two.id)
    logs = organization.audit_logs
    assert [entry.type for entry in logs.list(project_ids=[two.id])] == ["project.archived", "project.created"]
    assert [entry.project.id for entry in logs.list(resource_ids=[one.id]) if entry.project] == [one.id]
    assert [entry.type for entry in logs.list(event_types=["project.archived"])] == ["project.archived"]
    assert logs.list(actor_ids=["key_0"]).data == []
    assert logs.list(actor_emails=["a@example.com"]).data == []
    now = int(utc_now().timestamp())
    ranges = ({"gte": now - 60}, {"gt": now - 60, "lte": now + 60}, {"lt": now + 60})
    assert all(len(logs.list(effective_at=found).data) == 3 for found in ranges)  # type: ignore[arg-type]
    assert logs.list(effective_at={"gt": now + 60}).data == []
    assert logs.list(effective_at={"lt": now - int(timedelta(hours=1).total_seconds())}).data == []


def test_pages_go_both_ways(organization: Organization) -> None:
    for number in range(5):
        organization.projects.create(name=f"p{number}")
    ids = [entry.id for entry in organization.audit_logs.list()]
    assert [entry.id for entry in organization.audit_logs.list(limit=2)] == ids
    newer = organization.audit_logs.list(before=ids[3], limit=2)
    assert [entry.id for entry in newer.data] == ids[1:3]
    assert newer.has_more
    assert organization.audit_logs.list(before=ids[0]).data == []


def test_events_that_never_happen_here_are_not_found(organization: Organization) -> None:
    project_id = organization.projects.create(name="p").id
    logs = organization.audit_logs
    assert logs.list(event_types=["login.succeeded"]).data == []
    [created] = logs.list(event_types=["project.created", "login.succeeded"], tenant_only=False).data
    assert created.project is not None
    assert created.project.id == project_id


def test_every_event_type_that_the_client_knows_can_be_asked_for(organization: Organization) -> None:
    known = get_args(AuditLogListResponse.model_fields["type"].annotation)
    assert set(get_args(AskedEventType)) == set(known)
    organization.projects.create(name="p")
    for start in range(0, len(known), 100):
        asked = known[start : start + 100]
        assert {entry.type for entry in organization.audit_logs.list(event_types=asked)} <= {"project.created"}


def test_an_event_type_that_is_none_is_refused(organization: Organization) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        organization.audit_logs.list(event_types=["project.archivd"])  # type: ignore[list-item]
    assert 'did you mean "project.archived"?' in raised.value.message
    assert len(raised.value.message) < 300


def test_there_are_no_tenants_to_ask_for(organization: Organization) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        organization.audit_logs.list(tenant_only=True)
    assert raised.value.param == "tenant_only"


def test_what_is_refused_leaves_no_entry(organization: Organization) -> None:
    with pytest.raises(openai.NotFoundError):
        organization.projects.update("proj_0", name="x")
    assert organization.audit_logs.list().data == []
