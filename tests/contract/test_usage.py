"""`client.admin.organization.usage.costs`, and usage itself in the same shape."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import openai
import pytest
from openai.resources.admin.organization import Organization

from schemas.ids import ProjectId
from service.db.projects import ProjectRepository
from service.db.tables import JobRow, RunRow, StoredBytesRow
from service.db.usage import UsageRepository
from service.organization.metering import measure_stored_bytes
from tests.contract.rows import submit, upload
from tests.contract.server import ProjectAccess, Server, new_project, openai_client

MORNING = datetime(2026, 3, 2, tzinfo=UTC)
"""Of a day that has passed and on which no other test uses anything."""
DAY = timedelta(days=1)
GIB = 1024**3
WAITING_S = 0.5
"""Enough for a thread to come to where it waits."""


@pytest.fixture
def admin_http(server: Server, admin_key: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30, base_url=server.url, headers={"Authorization": f"Bearer {admin_key}"}) as connected:
        yield connected


@pytest.fixture(autouse=True)
def nothing_before(server: Server) -> None:
    with server.database.write() as session:
        session.query(RunRow).delete()
        session.query(StoredBytesRow).delete()
        session.query(JobRow).update({"finished_at": None})


def add_use(
    server: Server, project: ProjectAccess, *, began: datetime, hours: float, gpus: int, tokens: int, model: str
) -> None:
    """A job that succeeded after one run."""
    job_id = submit(openai_client(server, project), model="large-llama")
    ended = began + timedelta(hours=hours)
    with server.database.write() as session:
        session.query(JobRow).filter_by(id=job_id).update(
            {"status": "succeeded", "finished_at": ended, "trained_tokens": tokens, "model": model}
        )
        session.add(
            RunRow(
                id=f"{job_id}-1",
                job_id=job_id,
                project_id=project.id,
                attempt=1,
                model=model,
                gpus=gpus,
                created_at=began,
                submitted_at=began,
                ended_at=ended,
                chunks_ingested=0,
            )
        )


def note_bytes(server: Server, project: ProjectAccess, *, day: datetime, stored_bytes: int) -> None:
    with server.database.write() as session:
        usage = UsageRepository(session)
        usage.note_stored_bytes(ProjectId(project.id), day=day.date(), stored_bytes=stored_bytes)


def ask_usage(http: httpx2.Client, **query: Any) -> dict[str, Any]:
    span = {"start_time": seconds(MORNING), "end_time": seconds(MORNING + 3 * DAY)}
    answer = http.get("/v1/organization/usage/fine_tuning", params=span | query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def test_usage_is_told_by_day_project_and_base_model(admin_http: httpx2.Client, server: Server) -> None:
    one, two = new_project(server.database), new_project(server.database)
    add_use(server, one, began=MORNING + timedelta(hours=23), hours=2, gpus=2, tokens=500, model="large-llama")
    add_use(server, two, began=MORNING, hours=1, gpus=0, tokens=70, model="ft:tiny-llama:two::0123456789ab")
    note_bytes(server, one, day=MORNING, stored_bytes=5)
    note_bytes(server, one, day=MORNING, stored_bytes=7)
    page = ask_usage(admin_http, **{"group_by[]": ["project_id", "model"]})
    assert (page["object"], page["has_more"], page["next_page"]) == ("page", False, None)
    assert [bucket["start_time"] for bucket in page["data"]] == [seconds(MORNING + n * DAY) for n in range(3)]
    first, second, third = (told(bucket) for bucket in page["data"])
    assert first == {
        (one.id, None): (0, 0, 0, 0, 7),
        (one.id, "large-llama"): (7200, 3600, 0, 0, 0),
        (two.id, "tiny-llama"): (0, 3600, 70, 1, 0),
    }
    assert second == {(one.id, "large-llama"): (7200, 3600, 500, 1, 0)}
    assert third == {}
    [everything] = ask_usage(admin_http, limit=1)["data"][0]["results"]
    assert told({"results": [everything]}) == {(None, None): (7200, 7200, 70, 1, 7)}
    only = ask_usage(admin_http, **{"project_ids[]": two.id, "models[]": "tiny-llama", "group_by[]": "model"})
    assert told(only["data"][0]) == {(None, "tiny-llama"): (0, 3600, 70, 1, 0)}


def told(bucket: dict[str, Any]) -> dict[tuple[str, str], tuple[float, ...]]:
    names = ("gpu_seconds", "run_seconds", "trained_tokens", "succeeded_jobs", "stored_bytes")
    return {(each["project_id"], each["model"]): tuple(each[name] for name in names) for each in bucket["results"]}


def test_costs_are_quantities_at_the_operators_prices(organization: Organization, server: Server) -> None:
    project = new_project(server.database)
    add_use(server, project, began=MORNING, hours=1, gpus=2, tokens=3_000_000, model="large-llama")
    note_bytes(server, project, day=MORNING, stored_bytes=10 * GIB)
    span = {"start_time": seconds(MORNING), "end_time": seconds(MORNING + DAY)}
    by_item = organization.usage.costs(**span, group_by=["project_id", "line_item"])  # type: ignore[arg-type]
    found = {result.to_dict()["line_item"]: result.to_dict() for result in by_item.data[0].results}
    assert {result["project_id"] for result in found.values()} == {project.id}
    assert {item: (each["quantity"], each["quantity_unit"], each["amount"]) for item, each in found.items()} == {
        "gpu_hours": (2.0, "duration_hours", {"value": 7.2, "currency": "eur"}),
        "trained_tokens": (3_000_000.0, "tokens", {"value": 6.0, "currency": "eur"}),
        "stored_bytes": (240.0, "gibibyte_hours", {"value": 0.24, "currency": "eur"}),
    }
    [total] = organization.usage.costs(**span, project_ids=[project.id]).data[0].results  # type: ignore[arg-type]
    assert total.to_dict()["amount"] == {"value": 13.44, "currency": "eur"}
    assert total.to_dict()["line_item"] is None
    tokens = organization.usage.costs(**span, line_items=["trained_tokens"]).data[0].results  # type: ignore[arg-type]
    assert [result.to_dict()["amount"]["value"] for result in tokens] == [6.0]  # type: ignore[index]


def test_days_come_in_pages(admin_http: httpx2.Client) -> None:
    first = ask_usage(admin_http, limit=2)
    assert first["has_more"]
    second = ask_usage(admin_http, limit=2, page=first["next_page"])
    starts = [bucket["start_time"] for page in (first, second) for bucket in page["data"]]
    assert starts == [seconds(MORNING + n * DAY) for n in range(3)]
    assert not second["has_more"]


def test_the_first_day_ends_where_the_next_begins(admin_http: httpx2.Client) -> None:
    days = ask_usage(admin_http, start_time=seconds(MORNING + timedelta(hours=10)))["data"]
    assert days[0]["start_time"] == seconds(MORNING + timedelta(hours=10))
    assert days[0]["end_time"] == days[1]["start_time"] == seconds(MORNING + DAY)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"page": "page_7"}, "page"),
        ({"page": "later"}, "page"),
        ({"page": "page_0"}, "page"),
        ({"end_time": 5}, "end_time"),
        ({"bucket_width": "1h"}, "bucket_width"),
        ({"limit": 181}, "limit"),
    ],
)
def test_a_span_that_is_none_is_refused(organization: Organization, query: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        organization.usage.costs(start_time=seconds(MORNING), extra_query=query)
    assert raised.value.param == param


@pytest.mark.slow  # as many projects as the server has
def test_stored_bytes_are_measured_for_each_project(admin_http: httpx2.Client, server: Server) -> None:
    project = new_project(server.database)
    upload(openai_client(server, project), content=b'{"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}\n')
    measure_stored_bytes(server.database, now=MORNING)
    bucket = ask_usage(admin_http, **{"project_ids[]": project.id})["data"][0]
    assert [result["stored_bytes"] for result in bucket["results"]] == [56]


@pytest.mark.slow  # as many projects as the server has
def test_processes_that_measure_at_once_wait_for_each_other(admin_http: httpx2.Client, server: Server) -> None:
    project = new_project(server.database)
    upload(openai_client(server, project), content=b'{"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}\n')
    with ThreadPoolExecutor(1) as pool:
        with server.database.write() as session:  # as another process, in the middle of the same project
            ProjectRepository(session).lock(project.id)
            UsageRepository(session).note_stored_bytes(project.id, day=MORNING.date(), stored_bytes=9)
            session.flush()
            measuring = pool.submit(measure_stored_bytes, server.database, now=MORNING)
            time.sleep(WAITING_S)
            assert not measuring.done()
        measuring.result()
    bucket = ask_usage(admin_http, **{"project_ids[]": project.id})["data"][0]
    assert [result["stored_bytes"] for result in bucket["results"]] == [56]
