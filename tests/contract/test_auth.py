"""Who may ask what: keys, and projects kept apart."""

import socket
from datetime import timedelta

import httpx2
import openai
import pytest
from openai import OpenAI

from service.api_keys import hash_api_key, new_api_key
from service.clock import utc_now
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow
from service.identifiers import new_key_id
from tests.contract.rows import submit, upload
from tests.contract.server import ProjectAccess, Server, new_project, openai_client

PATHS = ["/v1/files", "/v1/fine_tuning/jobs", "/v1/models", "/v1/fine_tuning/jobs/ftjob-1/events"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        pytest.param({}, "no API key", id="missing"),
        pytest.param({"Authorization": "Bearer sk-dpo-wrong"}, "not known", id="wrong"),
        pytest.param({"Authorization": "Basic abc"}, "malformed", id="another scheme"),
        pytest.param({"Authorization": "Bearer"}, "malformed", id="no key after the scheme"),
        pytest.param({"Authorization": "sk-dpo-wrong"}, "malformed", id="no scheme"),
        pytest.param({"Authorization": b"Bearer \xff\xfe"}, "not known", id="not text"),
    ],
)
def test_without_a_good_key_there_is_a_401(
    server: Server, path: str, headers: dict[str, str | bytes], told: str
) -> None:
    answer = httpx2.get(server.url + path, headers=headers, verify=False)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert told in answer.json()["error"]["message"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "sk-dpo-wrong" not in answer.text


def test_the_sdk_raises_its_authentication_error(server: Server, project: ProjectAccess) -> None:
    wrong = ProjectAccess(project.id, "sk-dpo-wrong")
    with pytest.raises(openai.AuthenticationError) as raised:
        openai_client(server, wrong).models.list()
    assert raised.value.code == "invalid_api_key"


@pytest.mark.parametrize("ended_by", ["revoked_at", "expires_at"])
def test_a_key_that_was_ended_is_refused(server: Server, project: ProjectAccess, ended_by: str) -> None:
    key, now = new_api_key(), utc_now()
    row = ApiKeyRow(id=new_key_id(), project_id=project.id, sha256=hash_api_key(key), created_at=now)
    setattr(row, ended_by, now - timedelta(seconds=1))
    with server.database.write() as session:
        ProjectRepository(session).add_key(row)
    answer = httpx2.get(server.url + "/v1/models", headers={"Authorization": f"Bearer {key}"}, verify=False)
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/v1/files", "/v1/fine_tuning/jobs"])
def test_a_bad_key_is_told_before_the_body_is_read(server: Server, path: str) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n\r\n--b"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


def test_another_projects_things_do_not_exist(server: Server, client: OpenAI) -> None:
    file_id, job_id = upload(client), submit(client)
    stranger = openai_client(server, new_project(server.database))
    asked = [
        lambda: stranger.files.retrieve(file_id),
        lambda: stranger.files.content(file_id),
        lambda: stranger.files.delete(file_id),
        lambda: stranger.fine_tuning.jobs.retrieve(job_id),
        lambda: stranger.fine_tuning.jobs.cancel(job_id),
        lambda: stranger.fine_tuning.jobs.list_events(job_id),
        lambda: stranger.fine_tuning.jobs.checkpoints.list(job_id),
    ]
    for ask in asked:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            ask()
    with pytest.raises(openai.BadRequestError, match=f'training_file "{file_id}" does not exist'):
        stranger.fine_tuning.jobs.create(model="tiny-llama", training_file=file_id)
    assert stranger.files.list().data == stranger.fine_tuning.jobs.list().data == []
    assert client.fine_tuning.jobs.retrieve(job_id).status == "validating_files"
