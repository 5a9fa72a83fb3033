"""`Idempotency-Key` of an administrator's requests: made once, and a key's value is told once."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai.resources.admin.organization import Organization
from sqlalchemy import select

from service.db.tables import IdempotencyRow
from tests.contract.operations import DOCUMENT
from tests.contract.rows import PAIR
from tests.contract.server import Server, new_project, openai_client
from tests.contract.test_idempotency import at_once, fresh_key

CREATING_PATHS = (
    "/v1/organization/projects",
    "/v1/organization/projects/{project_id}/service_accounts",
    "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys",
    "/v1/organization/admin_api_keys",
)

Create = Callable[[Organization, str, str, Mapping[str, str]], Any]
"""By an organization, in a project, for a service account of it, with these headers."""


def create_account(organization: Organization, project_id: str, _: str, headers: Mapping[str, str]) -> Any:
    return organization.projects.service_accounts.create(project_id, name="ci", extra_headers=headers)


def create_key(organization: Organization, project_id: str, account_id: str, headers: Mapping[str, str]) -> Any:
    keys = organization.projects.service_accounts.api_keys
    return keys.create(account_id, project_id=project_id, name="second", extra_headers=headers)


def create_admin_key(organization: Organization, _: str, __: str, headers: Mapping[str, str]) -> Any:
    return organization.admin_api_keys.create(name="second", extra_headers=headers)


with_a_secret = pytest.mark.parametrize(
    ("create", "remedy"),
    [
        pytest.param(
            create_account, "DELETE /v1/organization/projects/{project_id}/service_accounts/{id}", id="account"
        ),
        pytest.param(create_key, "DELETE /v1/organization/projects/{project_id}/api_keys/{id}", id="key"),
        pytest.param(create_admin_key, "DELETE /v1/organization/admin_api_keys/{id}", id="admin key"),
    ],
)


@pytest.fixture
def project_id(organization: Organization) -> str:
    return organization.projects.create(name="p").id


@pytest.fixture
def account_id(organization: Organization, project_id: str) -> str:
    accounts = organization.projects.service_accounts
    return accounts.create(project_id, name="first", create_service_account_only=True).id


def everything_made(organization: Organization, project_id: str) -> list[str]:
    projects = organization.projects
    lists: list[Any] = [
        projects.service_accounts.list(project_id),
        projects.api_keys.list(project_id),
        organization.admin_api_keys.list(),
    ]
    return [each.id for listed in lists for each in listed]


def test_a_repeated_project_is_the_first_one(organization: Organization) -> None:
    headers, name = fresh_key(), str(uuid4())
    first = organization.projects.create(name=name, extra_headers=headers)
    organization.projects.update(first.id, name=f"{name} renamed")
    assert organization.projects.create(name=name, extra_headers=headers) == first
    assert organization.projects.create(name=name).id != first.id


def test_projects_sent_at_once_are_one(organization: Organization) -> None:
    headers, name = fresh_key(), str(uuid4())
    made = at_once(lambda: organization.projects.create(name=name, extra_headers=headers).id)
    assert len(set(made)) == 1
    assert [project.name for project in organization.projects.list(limit=100)].count(name) == 1
    assert len(organization.audit_logs.list(resource_ids=made[:1]).data) == 1


def test_a_repeated_account_without_a_key_is_the_first_one(organization: Organization, project_id: str) -> None:
    headers = fresh_key()
    first, again = (
        organization.projects.service_accounts.create(
            project_id, name="ci", create_service_account_only=True, extra_headers=headers
        )
        for _ in range(2)
    )
    assert first == again
    assert [account.id for account in organization.projects.service_accounts.list(project_id)] == [first.id]


@with_a_secret
def test_a_repeat_makes_nothing_and_says_what_to_do_without_the_secret(
    organization: Organization, project_id: str, account_id: str, create: Create, remedy: str
) -> None:
    headers = fresh_key()
    first = create(organization, project_id, account_id, headers)
    made = everything_made(organization, project_id)
    with pytest.raises(openai.ConflictError) as raised:
        create(organization, project_id, account_id, headers)
    assert raised.value.code == "secret_told_before"
    assert remedy.format(project_id=project_id, id=first.id) in raised.value.message
    assert "new Idempotency-Key" in raised.value.message
    assert everything_made(organization, project_id) == made


@with_a_secret
def test_the_secret_is_not_in_the_first_answer_that_is_kept(
    organization: Organization, server: Server, project_id: str, account_id: str, create: Create, remedy: str
) -> None:
    headers = fresh_key()
    first = create(organization, project_id, account_id, headers)
    value = first.api_key.value if create is create_account else first.value
    with server.database.read() as session:
        query = select(IdempotencyRow).where(IdempotencyRow.key == headers["Idempotency-Key"])
        kept = session.scalars(query).one()
    assert kept.response_body["id"] == first.id
    assert value not in str(kept.response_body)
    assert "value" not in kept.response_body


@with_a_secret
def test_of_those_sent_at_once_one_gets_the_secret(
    organization: Organization, project_id: str, account_id: str, create: Create, remedy: str
) -> None:
    headers, made = fresh_key(), len(everything_made(organization, project_id))

    def attempt() -> str:
        try:
            return str(create(organization, project_id, account_id, headers).id)
        except openai.ConflictError as error:
            return str(error.code)

    told = at_once(attempt)
    assert [code for code in told if code == "secret_told_before"] == ["secret_told_before"] * (len(told) - 1)
    assert len(everything_made(organization, project_id)) - made == (2 if create is create_account else 1)


@with_a_secret
def test_a_key_with_another_path_is_refused(
    organization: Organization, project_id: str, account_id: str, create: Create, remedy: str
) -> None:
    headers = fresh_key()
    create(organization, project_id, account_id, headers)
    with pytest.raises(openai.ConflictError) as raised:
        organization.projects.create(name="p", extra_headers=headers)
    assert raised.value.code == "idempotency_key_reused"


def test_a_key_with_another_body_or_project_is_refused(organization: Organization, project_id: str) -> None:
    headers = fresh_key()
    accounts = organization.projects.service_accounts
    accounts.create(project_id, name="ci", extra_headers=headers)
    other_id = organization.projects.create(name="other").id
    for other in (
        lambda: accounts.create(project_id, name="deploy", extra_headers=headers),
        lambda: accounts.create(other_id, name="ci", extra_headers=headers),
    ):
        with pytest.raises(openai.ConflictError) as raised:
            other()
        assert raised.value.code == "idempotency_key_reused"
    assert accounts.list(other_id).data == []


def test_a_key_of_the_organization_is_no_projects(organization: Organization, server: Server) -> None:
    headers = fresh_key()
    organization.projects.create(name="p", extra_headers=headers)
    client = openai_client(server, new_project(server.database))
    file = client.files.create(file=("a.jsonl", PAIR), purpose="fine-tune", extra_headers=headers)
    assert file.id.startswith("file-")


def test_a_refused_creation_leaves_its_key_free(organization: Organization, project_id: str) -> None:
    headers = fresh_key()
    with pytest.raises(openai.NotFoundError):
        organization.projects.service_accounts.create("proj_none", name="ci", extra_headers=headers)
    assert create_account(organization, project_id, "", headers).api_key is not None


@pytest.mark.parametrize("path", CREATING_PATHS)
def test_the_document_tells_of_the_header(path: str) -> None:
    described = DOCUMENT["paths"][path]["post"]
    assert "idempotency-key" in [parameter["name"] for parameter in described["parameters"]]
    assert "409" in described["responses"]
