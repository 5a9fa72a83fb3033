"""What an administrator lets a project have, through the stock client, and what jobs and uploads beyond it are told."""

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.resources.admin.organization import Organization
from openai.types.admin.organization import Project

from service.api_keys import new_admin_key
from service.clock import month_start, next_month_start, utc_now
from service.db.admin_keys import AdminKeyRepository
from service.db.tables import AdminKeyRow, JobRow
from service.dispatcher.requirements import Requirements
from service.dispatcher.run_rows import new_run
from service.organization.admin_keys import admin_key_row
from tests.contract.rows import PAIR, add_model, move, submit, upload
from tests.contract.server import ProjectAccess, Server

NO_LIMITS = dict.fromkeys(
    ("max_running_jobs", "max_queued_jobs", "max_gpus", "max_gpu_hours_a_month", "max_stored_bytes")
)


@pytest.fixture
def organization(server: Server) -> Iterator[Organization]:
    key = new_admin_key()
    with server.database.write() as session:
        AdminKeyRepository(session).add(admin_key_row("tests", key, now=utc_now()))
    yield server.anonymous.with_options(admin_api_key=key).admin.organization
    with server.database.write() as session:
        session.query(AdminKeyRow).delete()


@pytest.fixture
def limit(organization: Organization, project: ProjectAccess) -> Callable[..., Project]:
    def change(**quotas: Any) -> Project:
        return organization.projects.update(project.id, extra_body={"quotas": quotas})

    return change


def quotas_of(project: Project) -> dict[str, Any]:
    return dict(project.to_dict()["quotas"])  # type: ignore[call-overload]


def usage_of(project: Project) -> dict[str, Any]:
    return dict(project.to_dict()["usage"])  # type: ignore[call-overload]


def add_gpu_run(server: Server, job_id: str, *, gpus: int, hours: float) -> None:
    """One that began so long ago, this month at the earliest, and still runs."""
    with server.database.write() as session:
        run = new_run(session.get_one(JobRow, job_id), Requirements(gpus, 1), attempt=1, now=utc_now())
        run.submitted_at = utc_now() - timedelta(hours=hours)
        session.add(run)


def test_quotas_are_set_at_creation_changed_one_by_one_and_taken_away(organization: Organization) -> None:
    created = organization.projects.create(name="p", extra_body={"quotas": {"max_gpus": 8, "max_queued_jobs": 3}})
    assert quotas_of(created) == NO_LIMITS | {"max_gpus": 8, "max_queued_jobs": 3}
    quotas = {"max_gpus": None, "max_gpu_hours_a_month": 1.5, "max_stored_bytes": 2**40}
    changed = organization.projects.update(created.id, extra_body={"quotas": quotas})
    assert quotas_of(changed) == NO_LIMITS | {"max_queued_jobs": 3} | quotas
    assert organization.projects.update(created.id, name="q").to_dict()["quotas"] == quotas_of(changed)
    assert organization.projects.retrieve(created.id).name == "q"
    assert quotas_of(organization.projects.create(name="free")) == NO_LIMITS


def test_a_project_shows_what_it_uses_and_a_list_does_not(
    organization: Organization, client: OpenAI, server: Server, project: ProjectAccess
) -> None:
    job_id = submit(client)
    client.uploads.create(bytes=1000, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    for number in (1, 2):
        add_model(server.database, project, job_id, name=f"ft:tiny-llama:{project.id}::{number}", adapter_key="runs/a")
    move(server.database, job_id, seen="validating_files", to="queued")
    move(server.database, job_id, seen="queued", to="running")
    add_gpu_run(server, job_id, gpus=4, hours=0)
    submit(client)
    usage = usage_of(organization.projects.retrieve(project.id))
    assert usage.pop("gpu_hours_this_month") == pytest.approx(0, abs=0.1)
    stored_bytes = 2 * len(PAIR) + 1000 + 7
    assert usage == {"running_jobs": 1, "queued_jobs": 1, "gpus": 4, "stored_bytes": stored_bytes}
    assert all(listed.to_dict()["usage"] is None for listed in organization.projects.list())


@pytest.mark.parametrize(
    ("quotas", "param"),
    [
        ({"max_gpus": -1}, "quotas.max_gpus"),
        ({"max_gpus": "8"}, "quotas.max_gpus"),
        ({"max_gpus": 1.5}, "quotas.max_gpus"),
        ({"max_running_jobs": 10**7}, "quotas.max_running_jobs"),
        ({"max_queued_jobs": True}, "quotas.max_queued_jobs"),
        ({"max_gpu_hours_a_month": -0.5}, "quotas.max_gpu_hours_a_month"),
        ({"max_stored_bytes": 2**63}, "quotas.max_stored_bytes"),
        ({"max_gpu_hours": 3}, "quotas.max_gpu_hours"),
        ([], "quotas"),
    ],
    ids=str,
)
def test_a_bad_quota_is_refused_by_its_name(organization: Organization, quotas: object, param: str) -> None:
    for ask in (organization.projects.create, lambda **sent: organization.projects.update("proj_none", **sent)):
        with pytest.raises(openai.BadRequestError) as raised:
            ask(name="p", extra_body={"quotas": quotas})
        assert raised.value.param == param


def test_a_job_of_more_gpus_than_the_project_may_hold_is_refused(client: OpenAI, limit: Callable[..., Project]) -> None:
    limit(max_gpus=1)
    with pytest.raises(openai.RateLimitError, match=r"needs 2 GPU\(s\) and the project may hold 1") as raised:
        submit(client, model="large-llama")
    assert (raised.value.code, raised.value.param) == ("quota_exceeded", "resources.gpus")
    assert submit(client, model="large-llama", extra_body={"resources": {"gpus": 1}})
    assert submit(client)


def test_a_project_whose_gpu_hours_are_used_up_gets_no_job_on_gpus_until_next_month(
    client: OpenAI, server: Server, limit: Callable[..., Project], http: httpx2.Client, project: ProjectAccess
) -> None:
    job_id, file_id = submit(client), upload(client)
    add_gpu_run(server, job_id, gpus=2, hours=0.05)
    used = min(0.1, 2 * (utc_now() - month_start(utc_now())).total_seconds() / 3600)
    limit(max_gpu_hours_a_month=used + 1)
    assert submit(client, model="large-llama")
    limit(max_gpu_hours_a_month=used / 2)
    request = {"model": "large-llama", "training_file": file_id}
    answer = http.post("/v1/fine_tuning/jobs", json=request, headers=project.headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (429, "quota_exceeded")
    assert f"try again from {next_month_start(utc_now()):%Y-%m-%d} (UTC) on" in error["message"]
    left_s = (next_month_start(utc_now()) - utc_now()).total_seconds()
    assert int(answer.headers["retry-after"]) == pytest.approx(left_s, abs=60)
    assert submit(client)
    limit(max_gpu_hours_a_month=None)
    assert submit(client, model="large-llama")


def test_a_paused_job_comes_back_only_while_the_queue_has_a_place(
    client: OpenAI, limit: Callable[..., Project]
) -> None:
    held = submit(client)
    client.fine_tuning.jobs.pause(held)
    limit(max_queued_jobs=1)
    waiting = submit(client)
    with pytest.raises(openai.RateLimitError, match=r"may have 1 job\(s\) waiting") as raised:
        client.fine_tuning.jobs.resume(held)
    assert raised.value.code == "quota_exceeded"
    assert client.fine_tuning.jobs.retrieve(held).status == "paused"
    client.fine_tuning.jobs.cancel(waiting)
    assert client.fine_tuning.jobs.resume(held).status == "validating_files"


def test_an_upload_beyond_the_stored_bytes_is_refused_and_leaves_nothing(
    client: OpenAI, server: Server, limit: Callable[..., Project]
) -> None:
    kept = upload(client, content=PAIR * 10)
    limit(max_stored_bytes=len(PAIR) * 15)
    before = server.store.list_keys("")
    with pytest.raises(openai.APIStatusError, match=r"The project may keep [0-9,]+ bytes and keeps") as raised:
        upload(client, content=PAIR * 6)
    assert (raised.value.status_code, raised.value.code, raised.value.param) == (413, "quota_exceeded", "file")  # type: ignore[attr-defined]
    assert server.store.list_keys("") == before
    assert upload(client, content=PAIR * 5)
    client.files.delete(kept)
    assert upload(client, content=PAIR * 6)


def test_a_body_is_answered_where_it_passes_the_room_and_not_at_its_end(
    server: Server, limit: Callable[..., Project], project: ProjectAccess
) -> None:
    limit(max_stored_bytes=100)
    before = server.store.list_keys("")
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"a" * 101
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {project.key}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + f"{len(form):x}\r\n".encode() + form + b"\r\n")  # and no end
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")
    assert server.store.list_keys("") == before


def test_a_repeat_of_an_upload_gets_its_first_answer_though_the_room_is_taken(
    client: OpenAI, limit: Callable[..., Project]
) -> None:
    limit(max_stored_bytes=len(PAIR))
    first, second = (
        client.files.create(file=("a", PAIR), purpose="fine-tune", extra_headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert first == second


def test_an_upload_in_parts_holds_what_it_announced_until_it_ends(
    client: OpenAI, limit: Callable[..., Project]
) -> None:
    limit(max_stored_bytes=100)
    begun = client.uploads.create(bytes=60, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    with pytest.raises(openai.APIStatusError, match="may keep 100 bytes and keeps 60") as raised:
        client.uploads.create(bytes=41, filename="b.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    assert (raised.value.status_code, raised.value.param) == (413, "bytes")  # type: ignore[attr-defined]
    part = client.uploads.parts.create(begun.id, data=b"a" * 60)
    with pytest.raises(openai.APIStatusError) as raised:
        client.uploads.parts.create(begun.id, data=b"a" * 41)
    assert (raised.value.status_code, raised.value.param) == (413, "data")  # type: ignore[attr-defined]
    client.uploads.parts.create(begun.id, data=b"b" * 40)
    assert client.uploads.complete(begun.id, part_ids=[part.id]).status == "completed"
    other = client.uploads.create(bytes=40, filename="b.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    client.uploads.cancel(other.id)
    assert upload(client, content=b"a" * 40)
