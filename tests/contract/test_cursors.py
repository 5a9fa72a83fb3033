"""`after` and `before` of another kind of list are refused; those of what is gone go on from where it was."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.resources.admin.organization import Organization

from tests.contract.server import ProjectAccess

List = Callable[[OpenAI, Organization, str, str], Any]
"""By a project's client, an organization and the project's id, from this cursor on."""

GONE = f"{0:012x}7{0:019x}"
"""Of an id of ours, older than all."""

LISTS = [
    pytest.param(lambda client, _, __, cursor: client.files.list(after=cursor), "file-", id="files"),
    pytest.param(lambda client, _, __, cursor: client.webhooks.list(after=cursor), "whe_", id="webhooks"),
    pytest.param(lambda _, org, __, cursor: org.projects.list(after=cursor), "proj_", id="projects"),
    pytest.param(
        lambda _, org, project_id, cursor: org.projects.service_accounts.list(project_id, after=cursor),
        "svc_",
        id="service accounts",
    ),
    pytest.param(
        lambda _, org, project_id, cursor: org.projects.api_keys.list(project_id, after=cursor), "key_", id="API keys"
    ),
    pytest.param(lambda _, org, __, cursor: org.admin_api_keys.list(after=cursor), "key_", id="admin keys"),
    pytest.param(lambda _, org, __, cursor: org.audit_logs.list(after=cursor), "audit_log-", id="audit logs"),
]


@pytest.mark.parametrize("cursor", [f"ftjob-{GONE}", "{prefix}bogus", "{prefix}" + GONE + "0"])
@pytest.mark.parametrize(("entries", "prefix"), LISTS)
def test_what_is_no_id_of_the_kind_is_no_cursor(
    client: OpenAI, organization: Organization, project: ProjectAccess, entries: List, prefix: str, cursor: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        entries(client, organization, project.id, cursor.format(prefix=prefix))
    assert raised.value.param == "after"
    assert f"id, {prefix}…" in raised.value.message
    assert entries(client, organization, project.id, f"{prefix}{GONE}").data == []


def test_deliveries_take_the_id_of_a_delivery_alone(client: OpenAI) -> None:
    endpoint = client.webhooks.create(
        name="ours", url="https://hooks.example.com", event_types=["fine_tuning.job.failed"]
    )
    with pytest.raises(openai.BadRequestError) as raised:
        client.get(f"/webhook_endpoints/{endpoint.id}/deliveries?after={endpoint.id}", cast_to=object)
    assert raised.value.param == "after"


def test_audit_logs_before_an_id_of_another_kind_are_refused(organization: Organization) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        organization.audit_logs.list(before="file-x")
    assert raised.value.param == "before"


def test_what_is_deleted_while_paging_does_not_break_the_pages(organization: Organization) -> None:
    project_id = organization.projects.create(name="p").id
    accounts = organization.projects.service_accounts
    for number in range(5):
        accounts.create(project_id, name=f"a{number}", create_service_account_only=True)
    deleted = [accounts.delete(each.id, project_id=project_id).deleted for each in accounts.list(project_id, limit=2)]
    assert deleted == [True] * 5
    assert accounts.list(project_id).data == []


@pytest.mark.parametrize("name", ["after", "before"])
def test_rate_limits_from_one_that_there_is_not_are_refused(
    organization: Organization, project: ProjectAccess, name: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        organization.projects.rate_limits.list_rate_limits(project.id, **{name: "rl-nope"})  # type: ignore[arg-type]
    assert raised.value.param == name
    assert "no rate limit of this list" in raised.value.message


def test_rate_limits_go_both_ways(organization: Organization, project: ProjectAccess) -> None:
    limits = organization.projects.rate_limits
    ids = [entry.id for entry in limits.list_rate_limits(project.id)]
    assert ids == ["rl-*", "rl-large-llama", "rl-tiny-llama"]
    before = limits.list_rate_limits(project.id, before=ids[2])
    assert ([entry.id for entry in before.data], before.has_more) == (ids[:2], False)
    nearest = limits.list_rate_limits(project.id, before=ids[2], limit=1)
    assert ([entry.id for entry in nearest.data], nearest.has_more) == (ids[1:2], True)
    assert limits.list_rate_limits(project.id, before=ids[0]).data == []
    between = limits.list_rate_limits(project.id, after=ids[0], before=ids[2])
    assert [entry.id for entry in between.data] == ids[1:2]
