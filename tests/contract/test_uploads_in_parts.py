"""`client.uploads`."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx2
import openai
import pytest
from openai import OpenAI

from schemas.uploads import MAX_PART_BYTES, MAX_UPLOAD_BYTES
from service.clock import utc_now
from service.db.tables import UploadRow
from tests.contract.rows import PAIR, submit
from tests.contract.server import ProjectAccess, Server, new_project, openai_client

WHOLE = PAIR * 30
PIECES = [WHOLE[:500], WHOLE[500:501], WHOLE[501:]]


@pytest.fixture
def keys_before(server: Server) -> list[str]:
    return stored_keys(server)


def stored_keys(server: Server) -> list[str]:
    return server.store.list_keys("files/") + server.store.list_keys("uploads/")


def begin(client: OpenAI, *, size_bytes: int = len(WHOLE), **fields: object) -> str:
    upload = client.uploads.create(
        bytes=size_bytes, filename="a/pairs.jsonl", mime_type="text/jsonl", purpose="fine-tune", **fields
    )
    assert upload.id.startswith("upload_")
    return upload.id


def send(client: OpenAI, upload_id: str, pieces: list[bytes]) -> list[str]:
    return [client.uploads.parts.create(upload_id, data=piece).id for piece in pieces]


def expire(server: Server, upload_id: str) -> None:
    with server.database.write() as session:
        session.get_one(UploadRow, upload_id).expires_at = utc_now() - timedelta(seconds=1)


def test_parts_become_one_file_that_a_job_takes(client: OpenAI, server: Server, keys_before: list[str]) -> None:
    created = client.uploads.create(bytes=len(WHOLE), filename="p.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    assert (created.object, created.status, created.bytes, created.file) == ("upload", "pending", len(WHOLE), None)
    assert (created.filename, created.purpose) == ("p.jsonl", "fine-tune")
    assert created.expires_at == created.created_at + 3_600
    part_ids = send(client, created.id, PIECES)
    completed = client.uploads.complete(created.id, part_ids=part_ids, md5=hashlib.md5(WHOLE).hexdigest().upper())
    assert completed.status == "completed"
    assert completed.file is not None
    assert completed.file == client.files.retrieve(completed.file.id)
    assert (completed.file.bytes, completed.file.filename) == (len(WHOLE), "p.jsonl")
    assert client.files.content(completed.file.id).read() == WHOLE
    assert [key for key in stored_keys(server) if key not in keys_before] == [f"files/{completed.file.id}"]
    assert submit(client, training_file=completed.file.id).startswith("ftjob-")


def test_the_clients_own_way_from_a_path(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(WHOLE)
    digest = hashlib.md5(WHOLE).hexdigest()
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=1_000, md5=digest
    )
    assert upload.file is not None
    assert client.files.content(upload.file.id).read() == WHOLE


def test_parts_may_come_at_once_and_in_any_order(client: OpenAI) -> None:
    upload_id = begin(client)
    backwards = list(reversed(PIECES))
    with ThreadPoolExecutor(3) as pool:
        part_ids = list(pool.map(lambda piece: send(client, upload_id, [piece])[0], backwards))
    file = client.uploads.complete(upload_id, part_ids=list(reversed(part_ids))).file
    assert file is not None
    assert client.files.content(file.id).read() == WHOLE


def test_a_part_that_is_not_named_is_left_out(client: OpenAI, server: Server, keys_before: list[str]) -> None:
    upload_id = begin(client)
    first, _sent_twice, *others = send(client, upload_id, [PIECES[0], *PIECES])
    file = client.uploads.complete(upload_id, part_ids=[first, *others]).file
    assert file is not None
    assert client.files.content(file.id).read() == WHOLE
    assert [key for key in stored_keys(server) if key not in keys_before] == [f"files/{file.id}"]


def test_the_file_can_expire(client: OpenAI) -> None:
    upload_id = begin(client, expires_after={"anchor": "created_at", "seconds": 3_600})
    file = client.uploads.complete(upload_id, part_ids=send(client, upload_id, PIECES)).file
    assert file is not None
    assert file.expires_at == file.created_at + 3_600


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"bytes": 0}, "bytes", id="no bytes"),
        pytest.param({"bytes": MAX_UPLOAD_BYTES + 1}, "bytes", id="over 8 GB"),
        pytest.param({"bytes": "7"}, "bytes", id="bytes as text"),
        pytest.param({"filename": ""}, "filename", id="no filename"),
        pytest.param({"purpose": "batch"}, "purpose", id="other purpose"),
        pytest.param({"mime_type": None}, "mime_type", id="no MIME type"),
        pytest.param({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds", id="soon"),
        pytest.param({"mimetype": "text/jsonl"}, "mimetype", id="unknown"),
    ],
)
def test_a_bad_upload_is_refused(http: httpx2.Client, fields: dict[str, object], param: str) -> None:
    good = {"bytes": 7, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    answer = http.post("/v1/uploads", json=good | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        pytest.param({"files": {"date": b"x"}}, "date", id="unknown field"),
        pytest.param({"files": [("data", b"x"), ("data", b"y")]}, "data", id="two"),
        pytest.param({"files": {"data": b""}}, "data", id="empty"),
        pytest.param({"json": {"data": "x"}}, None, id="not a form"),
    ],
)
def test_a_bad_part_leaves_nothing(
    client: OpenAI, http: httpx2.Client, server: Server, form: dict[str, object], param: str | None
) -> None:
    upload_id, before = begin(client), stored_keys(server)
    answer = http.post(f"/v1/uploads/{upload_id}/parts", **form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert stored_keys(server) == before


def test_a_part_over_64_mb_is_refused(client: OpenAI, http: httpx2.Client, server: Server) -> None:
    upload_id, before = begin(client), stored_keys(server)
    answer = http.post(f"/v1/uploads/{upload_id}/parts", files={"data": bytes(MAX_PART_BYTES + 1)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "data")
    assert stored_keys(server) == before


def test_what_does_not_add_up_is_refused_and_can_be_mended(client: OpenAI) -> None:
    upload_id = begin(client)
    part_ids = send(client, upload_id, PIECES)
    with pytest.raises(openai.BadRequestError, match="announced") as raised:
        client.uploads.complete(upload_id, part_ids=part_ids[:-1])
    assert (raised.value.code, raised.value.param) == ("bytes_mismatch", "part_ids")
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload_id, part_ids=[part_ids[0], part_ids[0], part_ids[2]])
    assert raised.value.param == "part_ids.1"
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload_id, part_ids=["part_none"])
    assert raised.value.param == "part_ids.0"
    assert client.uploads.complete(upload_id, part_ids=part_ids).status == "completed"


def test_another_md5_is_refused_and_leaves_no_file(client: OpenAI, server: Server) -> None:
    upload_id = begin(client)
    part_ids, before = send(client, upload_id, PIECES), server.store.list_keys("files/")
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload_id, part_ids=list(reversed(part_ids)), md5=hashlib.md5(WHOLE).hexdigest())
    assert (raised.value.code, raised.value.param) == ("md5_mismatch", "md5")
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload_id, part_ids=part_ids, md5="abc")
    assert raised.value.param == "md5"
    assert server.store.list_keys("files/") == before


def test_completes_at_once_make_one_file(client: OpenAI, server: Server, keys_before: list[str]) -> None:
    upload_id = begin(client)
    part_ids = send(client, upload_id, PIECES)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.uploads.complete(upload_id, part_ids=part_ids), range(6)))
    assert {answer.file.id for answer in answers if answer.file} == {file.id for file in client.files.list()}
    assert len(client.files.list().data) == 1
    assert len([key for key in stored_keys(server) if key not in keys_before]) == 1


def test_a_repeated_complete_gets_the_first_answer(client: OpenAI) -> None:
    upload_id = begin(client)
    part_ids = send(client, upload_id, PIECES)
    first = client.uploads.complete(upload_id, part_ids=part_ids)
    assert client.uploads.complete(upload_id, part_ids=part_ids) == first
    with pytest.raises(openai.ConflictError) as raised:
        client.uploads.complete(upload_id, part_ids=part_ids[:1])
    assert raised.value.code == "upload_ended"


def test_a_cancelled_upload_takes_nothing_more(client: OpenAI, server: Server, keys_before: list[str]) -> None:
    upload_id = begin(client)
    part_ids = send(client, upload_id, PIECES)
    cancelled = client.uploads.cancel(upload_id)
    assert cancelled.status == "cancelled"
    assert client.uploads.cancel(upload_id) == cancelled
    _assert_ended(client, upload_id, part_ids)
    assert stored_keys(server) == keys_before


def test_a_completed_upload_cannot_be_cancelled(client: OpenAI) -> None:
    upload_id = begin(client)
    client.uploads.complete(upload_id, part_ids=send(client, upload_id, PIECES))
    with pytest.raises(openai.ConflictError):
        client.uploads.cancel(upload_id)


def test_an_expired_upload_says_so(client: OpenAI, http: httpx2.Client, server: Server) -> None:
    upload_id = begin(client)
    part_ids = send(client, upload_id, PIECES)
    expire(server, upload_id)
    assert http.get(f"/v1/uploads/{upload_id}").json()["status"] == "expired"
    _assert_ended(client, upload_id, part_ids)
    with pytest.raises(openai.ConflictError, match="is expired"):
        client.uploads.cancel(upload_id)


def test_a_completed_upload_outlives_its_file(client: OpenAI, http: httpx2.Client) -> None:
    upload_id = begin(client)
    file = client.uploads.complete(upload_id, part_ids=send(client, upload_id, PIECES)).file
    assert file is not None
    client.files.delete(file.id)
    now = http.get(f"/v1/uploads/{upload_id}").json()
    assert (now["status"], now["file"]) == ("completed", None)


def test_anothers_upload_is_not_there(client: OpenAI, server: Server) -> None:
    upload_id = begin(client)
    part_ids = send(client, upload_id, PIECES)
    stranger = openai_client(server, new_project(server.database))
    attempts: list[Callable[[], object]] = [
        lambda: stranger.uploads.parts.create(upload_id, data=b"x"),
        lambda: stranger.uploads.complete(upload_id, part_ids=part_ids),
        lambda: stranger.uploads.cancel(upload_id),
        lambda: client.uploads.cancel("upload_none"),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError) as raised:
            attempt()
        assert raised.value.code == "upload_not_found"


def test_repeats_of_a_key_make_one_upload_and_one_part(client: OpenAI, server: Server) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    upload_id = begin(client, extra_headers=headers)
    assert begin(client, extra_headers=headers) == upload_id
    headers = {"Idempotency-Key": str(uuid4())}
    part_ids = {client.uploads.parts.create(upload_id, data=WHOLE, extra_headers=headers).id for _ in range(2)}
    assert len(part_ids) == 1
    assert server.store.list_keys(f"uploads/{upload_id}/") == [f"uploads/{upload_id}/{part_ids.pop()}"]
    with pytest.raises(openai.ConflictError) as raised:
        client.uploads.parts.create(upload_id, data=b"other", extra_headers=headers)
    assert raised.value.code == "idempotency_key_reused"
    assert len(server.store.list_keys(f"uploads/{upload_id}/")) == 1


def test_no_key_no_part(server: Server, client: OpenAI, project: ProjectAccess) -> None:
    upload_id = begin(client)
    answer = httpx2.post(f"{server.url}/v1/uploads/{upload_id}/parts", files={"data": b"x"})
    assert answer.status_code == 401


def _assert_ended(client: OpenAI, upload_id: str, part_ids: list[str]) -> None:
    with pytest.raises(openai.ConflictError) as raised:
        client.uploads.parts.create(upload_id, data=b"x")
    assert (raised.value.code, raised.value.param) == ("upload_ended", "upload_id")
    assert raised.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.ConflictError):
        client.uploads.complete(upload_id, part_ids=part_ids)
