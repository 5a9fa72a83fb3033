"""`client.admin.organization`: projects, service accounts, API keys and admin keys."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.resources.admin.organization import Organization
from sqlalchemy import select

from service.clock import utc_now
from service.db.tables import ApiKeyRow, Table
from tests.contract.rows import submit, upload
from tests.contract.server import Server


@pytest.fixture
def admin_http(server: Server, admin_key: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30, base_url=server.url, headers={"Authorization": f"Bearer {admin_key}"}) as connected:
        yield connected


def with_key(server: Server, key: str) -> OpenAI:
    return server.anonymous.with_options(api_key=key)


def opens(server: Server, key: str) -> bool:
    try:
        with_key(server, key).files.list()
    except openai.AuthenticationError:
        return False
    return True


def test_a_project_from_its_creation_to_its_archive(organization: Organization, server: Server) -> None:
    created = organization.projects.create(name="Team A")
    assert created.id.startswith("proj_")
    assert (created.object, created.name, created.status) == ("organization.project", "Team A", "active")
    assert organization.projects.retrieve(created.id) == created
    assert organization.projects.update(created.id, name="Team B").name == "Team B"
    key = organization.projects.service_accounts.create(created.id, name="ci").api_key
    assert key is not None
    assert opens(server, key.value)
    archived = organization.projects.archive(created.id)
    assert archived.status == "archived"
    assert organization.projects.archive(created.id) == archived
    assert not opens(server, key.value)
    assert created.id not in [project.id for project in organization.projects.list()]
    assert created.id in [project.id for project in organization.projects.list(include_archived=True)]
    for change in (
        lambda: organization.projects.update(created.id, name="C"),
        lambda: organization.projects.service_accounts.create(created.id, name="late"),
    ):
        with pytest.raises(openai.ConflictError) as raised:
            change()
        assert raised.value.code == "project_archived"


def test_a_null_of_what_a_project_has_not_is_as_if_it_were_not_given(organization: Organization) -> None:
    created = organization.projects.create(name="n", external_key_id=None, geography=None, residency=None)
    changed = organization.projects.update(created.id, name=None, external_key_id=None, geography=None)
    assert changed == created
    assert organization.projects.update(created.id, name="m", external_key_id=None).name == "m"
    with pytest.raises(openai.BadRequestError) as raised:
        organization.projects.update(created.id, external_key_id="key-1")
    assert raised.value.param == "external_key_id"


def test_projects_come_in_pages(organization: Organization) -> None:
    made = [organization.projects.create(name=f"p{n}").id for n in range(5)]
    listed = [project.id for project in organization.projects.list(limit=2)]
    assert listed[:5] == made[::-1]
    assert len(listed) == len(set(listed))


def test_a_service_account_works_in_its_own_project_alone(organization: Organization, server: Server) -> None:
    keys = []
    for name in ("one", "two"):
        project = organization.projects.create(name=name)
        account = organization.projects.service_accounts.create(project.id, name="ci")
        assert (account.object, account.role) == ("organization.project.service_account", "member")
        assert account.api_key is not None
        keys.append(account.api_key.value)
    file_id = upload(with_key(server, keys[0]))
    submit(with_key(server, keys[0]), training_file=file_id)
    with pytest.raises(openai.NotFoundError):
        with_key(server, keys[1]).files.retrieve(file_id)


def test_service_accounts_are_listed_renamed_and_deleted_with_their_keys(
    organization: Organization, server: Server
) -> None:
    project_id = organization.projects.create(name="p").id
    accounts = organization.projects.service_accounts
    bare = accounts.create(project_id, name="bare", create_service_account_only=True)
    assert bare.api_key is None
    made = accounts.create(project_id, name="ci")
    assert made.api_key is not None
    second = accounts.api_keys.create(made.id, project_id=project_id, name="second")
    assert [account.id for account in accounts.list(project_id, limit=1)] == [made.id, bare.id]
    assert accounts.update(made.id, project_id=project_id, name="deploy").name == "deploy"
    assert accounts.retrieve(made.id, project_id=project_id).name == "deploy"
    assert opens(server, made.api_key.value)
    assert opens(server, second.value)
    assert accounts.delete(made.id, project_id=project_id).deleted
    assert not opens(server, made.api_key.value)
    assert not opens(server, second.value)
    assert [account.id for account in accounts.list(project_id)] == [bare.id]
    with pytest.raises(openai.NotFoundError) as raised:
        accounts.delete(made.id, project_id=project_id)
    assert raised.value.code == "service_account_not_found"


def test_an_account_without_a_key_has_no_lifetime_of_one(organization: Organization) -> None:
    project_id = organization.projects.create(name="p").id
    accounts = organization.projects.service_accounts
    with pytest.raises(openai.BadRequestError) as raised:
        accounts.create(project_id, name="bare", create_service_account_only=True, expires_in_seconds=60)
    assert raised.value.param == "expires_in_seconds"
    assert accounts.list(project_id).data == []
    bare = accounts.create(project_id, name="bare", create_service_account_only=True, expires_in_seconds=None)
    assert bare.api_key is None
    with_key = accounts.create(project_id, name="ci", create_service_account_only=False, expires_in_seconds=60)
    assert with_key.api_key is not None
    assert with_key.api_key.expires_at == with_key.api_key.created_at + 60


def test_a_key_is_shown_without_its_value_and_revoked_at_once(organization: Organization, server: Server) -> None:
    project_id = organization.projects.create(name="p").id
    account = organization.projects.service_accounts.create(project_id, name="ci")
    assert account.api_key is not None
    value, key_id = account.api_key.value, account.api_key.id
    keys = organization.projects.api_keys
    [listed] = keys.list(project_id).data
    assert listed == keys.retrieve(key_id, project_id=project_id)
    assert listed.redacted_value == f"sk-dpo-…{value[-4:]}"
    assert listed.owner.service_account is not None
    assert (listed.owner.service_account.id, listed.owner_project_access) == (account.id, "active")
    assert keys.list(project_id, owner_project_access="inactive").data == []
    assert opens(server, value)
    assert keys.delete(key_id, project_id=project_id).deleted
    assert not opens(server, value)
    assert keys.list(project_id).data == []


def test_a_key_expires_and_then_cannot_be_revived(organization: Organization, server: Server) -> None:
    project_id = organization.projects.create(name="p").id
    key = organization.projects.service_accounts.create(project_id, name="ci", expires_in_seconds=3_600).api_key
    assert key is not None
    assert key.expires_at == key.created_at + 3_600
    changed = organization.projects.api_keys.update(key.id, project_id=project_id, expires_in_seconds=7_200)
    assert changed.expires_at is not None
    assert changed.expires_at >= key.created_at + 7_200
    assert opens(server, key.value)
    with server.database.write() as session:
        session.get_one(ApiKeyRow, key.id).expires_at = utc_now() - timedelta(seconds=1)
    assert not opens(server, key.value)
    with pytest.raises(openai.ConflictError) as raised:
        organization.projects.api_keys.update(key.id, project_id=project_id, expires_in_seconds=60)
    assert raised.value.code == "api_key_expired"


def test_a_reading_key_changes_nothing(organization: Organization, server: Server) -> None:
    project_id = organization.projects.create(name="p").id
    accounts = organization.projects.service_accounts
    account = accounts.create(project_id, name="ci", create_service_account_only=True)
    key = accounts.api_keys.create(account.id, project_id=project_id, name="reads", scopes=["api.all.read"])
    client = with_key(server, key.value)
    assert client.files.list().data == []
    for change in (lambda: upload(client), lambda: client.files.delete("file-1"), lambda: client.uploads.cancel("x")):
        with pytest.raises(openai.PermissionDeniedError) as raised:
            change()
        assert raised.value.code == "insufficient_permissions"
    organization.projects.api_keys.update(key.id, project_id=project_id, scopes=[])
    assert upload(client).startswith("file-")


def test_admin_keys_make_and_revoke_each_other(organization: Organization, server: Server, admin_key: str) -> None:
    created = organization.admin_api_keys.create(name="second", expires_in_seconds=3_600)
    assert created.redacted_value == f"sk-admin-dpo-…{created.value[-4:]}"
    assert created.expires_at == created.created_at + 3_600
    second = server.anonymous.with_options(admin_api_key=created.value).admin.organization
    ids = [key.id for key in second.admin_api_keys.list(limit=1, order="asc")]
    assert len(ids) == 2
    assert ids[1] == created.id
    assert second.admin_api_keys.retrieve(created.id).name == "second"
    with pytest.raises(openai.ConflictError) as raised:
        second.admin_api_keys.delete(created.id)
    assert raised.value.code == "own_admin_api_key"
    assert organization.admin_api_keys.delete(created.id).deleted
    with pytest.raises(openai.AuthenticationError):
        second.projects.list()
    with pytest.raises(openai.NotFoundError):
        organization.admin_api_keys.retrieve(created.id)


def test_no_value_of_a_key_is_stored(organization: Organization, server: Server) -> None:
    project_id = organization.projects.create(name="p").id
    key = organization.projects.service_accounts.create(project_id, name="ci").api_key
    assert key is not None
    values = [key.value, organization.admin_api_keys.create(name="a").value]
    with server.database.read() as session:
        stored = repr([session.execute(select(table)).all() for table in Table.metadata.sorted_tables])
    assert key.id in stored
    assert not any(value in stored for value in values)


def test_an_admin_key_opens_no_project(server: Server, admin_key: str) -> None:
    assert not opens(server, admin_key)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        pytest.param("projects", {}, "name", id="no name"),
        pytest.param("projects", {"name": ""}, "name", id="empty name"),
        pytest.param("projects", {"name": "x", "geography": "eu"}, "geography", id="what is not ours"),
        pytest.param("projects", {"name": "x", "residency": {"region": "eu"}}, "residency", id="no residency"),
        pytest.param("projects", {"name": "x", "project_id": None}, "project_id", id="a null of nothing"),
        pytest.param("admin_api_keys", {"name": "x", "expires_in_seconds": 0}, "expires_in_seconds", id="at once"),
        pytest.param("admin_api_keys", {"name": "x", "expires_in_seconds": 10**12}, "expires_in_seconds", id="never"),
    ],
)
def test_a_bad_request_names_its_field(
    admin_http: httpx2.Client, path: str, body: dict[str, object], param: str
) -> None:
    answer = admin_http.post(f"/v1/organization/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_what_is_not_there_is_a_404(organization: Organization) -> None:
    project_id = organization.projects.create(name="p").id
    attempts: list[Callable[[], object]] = [
        lambda: organization.projects.retrieve("proj_none"),
        lambda: organization.projects.api_keys.list("proj_none"),
        lambda: organization.projects.api_keys.delete("key_none", project_id=project_id),
        lambda: organization.projects.service_accounts.list("proj_none"),
        lambda: organization.projects.service_accounts.retrieve("svc_none", project_id=project_id),
        lambda: organization.admin_api_keys.delete("key_none"),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            attempt()
