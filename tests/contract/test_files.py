"""`client.files`."""

from datetime import timedelta
from pathlib import Path

import httpx2
import openai
import pytest
from openai import OpenAI

from schemas.ids import FileId
from service.clock import utc_now
from service.db.files import FileRepository
from service.db.tables import FileRow
from tests.contract.rows import PAIR, submit, upload
from tests.contract.server import ProjectAccess, Server
from tests.file_rows import file_row


def test_an_upload_comes_back_as_it_went_in(client: OpenAI) -> None:
    content = PAIR * 1_000
    created = client.files.create(file=("my pairs.jsonl", content), purpose="fine-tune")
    assert created.id.startswith("file-")
    assert (created.object, created.bytes, created.filename) == ("file", len(content), "my pairs.jsonl")
    assert (created.purpose, created.status, created.expires_at) == ("fine-tune", "processed", None)
    assert client.files.retrieve(created.id) == created
    assert client.files.wait_for_processing(created.id) == created
    assert client.files.content(created.id).read() == content
    assert client.files.list().data == [created]


def test_an_upload_from_a_path(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(PAIR)
    assert client.files.create(file=path, purpose="fine-tune").filename == "pairs.jsonl"


def test_a_file_can_expire(client: OpenAI, server: Server) -> None:
    lifetime = {"anchor": "created_at", "seconds": 3_600}
    created = client.files.create(file=("a.jsonl", PAIR), purpose="fine-tune", expires_after=lifetime)
    assert created.expires_at == created.created_at + 3_600
    with server.database.write() as session:
        row = session.get_one(FileRow, created.id)
        row.expires_at = utc_now() - timedelta(seconds=1)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(created.id)
    assert client.files.list().data == []


def test_a_deleted_file_is_gone_with_its_bytes(client: OpenAI, server: Server) -> None:
    file_id = upload(client)
    assert client.files.delete(file_id).deleted
    assert server.store.list_keys(f"files/{file_id}") == []
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file_id)


def test_a_file_under_a_waiting_job_can_be_deleted(client: OpenAI) -> None:
    file_id = upload(client)
    submit(client, training_file=file_id)
    assert client.files.delete(file_id).deleted


def test_bytes_that_vanished_are_a_404(client: OpenAI, server: Server) -> None:
    file_id = upload(client)
    server.store.delete(f"files/{file_id}")
    with pytest.raises(openai.NotFoundError):
        client.files.content(file_id)


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=2-999", 206, b"23456789", "bytes 2-9/10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(
    client: OpenAI, http: httpx2.Client, asked: str, status: int, content: bytes, content_range: str | None
) -> None:
    file_id = upload(client, content=b"0123456789")
    answer = http.get(f"/v1/files/{file_id}/content", headers={"range": asked})
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers.get("content-range") == content_range
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_range_outside_the_file_is_refused(client: OpenAI, http: httpx2.Client) -> None:
    file_id = upload(client, content=b"0123456789")
    answer = http.get(f"/v1/files/{file_id}/content", headers={"range": "bytes=10-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.json()["error"]["code"] == "range_not_satisfiable"


def test_a_download_keeps_its_name(client: OpenAI, http: httpx2.Client) -> None:
    file_id = upload(client, name="päir s.jsonl")
    disposition = http.get(f"/v1/files/{file_id}/content").headers["content-disposition"]
    assert disposition == "attachment; filename=\"p_ir s.jsonl\"; filename*=UTF-8''p%C3%A4ir%20s.jsonl"


def test_a_list_goes_on_after_its_last_id(client: OpenAI) -> None:
    ids = [upload(client) for _ in range(7)]
    assert [file.id for file in client.files.list(limit=3)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == ids
    page = client.files.list(limit=3)
    assert (page.has_more, page.first_id, page.last_id) == (True, ids[6], ids[4])


def test_a_list_by_purpose(client: OpenAI, server: Server, project: ProjectAccess) -> None:
    uploaded, result = upload(client), _add_result(server, project)
    assert [file.id for file in client.files.list(purpose="fine-tune")] == [uploaded]
    assert [file.id for file in client.files.list(purpose="fine-tune-results")] == [result]


def test_files_that_are_deleted_while_paging_do_not_break_the_pages(client: OpenAI) -> None:
    for _ in range(5):
        upload(client)
    assert sum(client.files.delete(file.id).deleted for file in client.files.list(limit=2)) == 5
    assert client.files.list().data == []


@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=10001", "limit", "less than or equal to 10000"),
        ("limit=x", "limit", 'limit is "x"'),
        ("order=up", "order", "'asc' or 'desc'"),
        ("purpose=batch", "purpose", "'fine-tune' or 'fine-tune-results'"),
        ("after=ftjob-1", "after", "give a file's id"),
        ("limt=1", "limt", 'did you mean "limit"?'),
    ],
)
def test_a_bad_query_is_refused(http: httpx2.Client, query: str, param: str, told: str) -> None:
    answer = http.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert told in answer.json()["error"]["message"]


def _add_result(server: Server, project: ProjectAccess) -> FileId:
    row = file_row(project.id, filename="step_metrics.csv", purpose="fine-tune-results")
    with server.database.write() as session:
        FileRepository(session).add(row)
        return FileId(row.id)
