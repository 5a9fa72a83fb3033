"""OWASP's API top ten (2023) over every route that the OpenAPI document tells of: who may ask, and how much."""

import json
import math
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import routing

from service.api.json_bodies import MAX_BODY_BYTES
from service.api_keys import new_admin_key, new_api_key
from tests.contract.belongings import (
    Belongings,
    archive,
    ended_admin_key,
    everything_stored,
    key_of_project,
    new_admin,
    new_belongings,
    unknown_ids,
)
from tests.contract.operations import (
    ADMIN_KEY,
    DOCUMENT,
    GUARDED,
    OF_ADMINS,
    OF_PROJECTS,
    OPERATIONS,
    PROJECT_KEY,
    WITH_FORM,
    WITH_JSON,
    Document,
    Operation,
    new_app,
)
from tests.contract.server import ProjectAccess, Server, new_project, running_server

pytestmark = pytest.mark.slow

OPEN = {"/livez", "/readyz", "/metrics"}
"""Without a key, by design."""
OF_THE_DOCUMENT = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
OF_NO_PROJECT = {"project_id", "key_id", "rate_limit_id"}
"""Of the organization; or, a rate limit, of every project under the same name."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
HUGE_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "-" + "9" * 400, "1e308", str(2**63))
MAX_FORM_BYTES = 80 * 1024**2
"""More than any form may have on the tests' server."""


@dataclass(frozen=True, slots=True)
class Guarded:
    server: Server
    admin_key: str
    owner: Belongings
    """Whose things they are."""
    stranger: ProjectAccess
    keys: dict[str, dict[str, str]]
    """Keys that open nothing: by the kind of key that the route asks for, and by what is wrong with them."""

    def key_for(self, operation: Operation) -> str:
        return self.admin_key if operation.key_kind == ADMIN_KEY else self.owner.project.key


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with running_server(tmp_path_factory.mktemp("guarded")) as server:
        admin_key = new_admin(server)
        owner = new_belongings(server, admin_key)
        archived = new_project(server.database)
        archive(server, archived)
        of_project = {
            "unknown": new_api_key(),
            "revoked": key_of_project(server, owner.project, ended_by="revoked_at"),
            "expired": key_of_project(server, owner.project, ended_by="expires_at"),
            "archived": archived.key,
            "other kind": admin_key,
        }
        of_admin = {
            "unknown": new_admin_key(),
            "revoked": ended_admin_key(server, ended_by="revoked_at"),
            "expired": ended_admin_key(server, ended_by="expires_at"),
            "other kind": owner.project.key,
        }
        keys = {PROJECT_KEY: of_project, ADMIN_KEY: of_admin}
        yield Guarded(server, admin_key, owner, new_project(server.database), keys)


@pytest.fixture(scope="module")
def http(guarded: Guarded) -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30, base_url=guarded.server.url, verify=False) as connected:
        yield connected


def ask(
    http: httpx2.Client,
    operation: Operation,
    ids: dict[str, str],
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    **changed: Any,
) -> httpx2.Response:
    """The operation with a body and a query that are as they should be, unless told otherwise."""
    bearer = {} if key is None else {"authorization": f"Bearer {key}"}
    arguments = changed if changed.keys() & {"json", "content", "files"} else operation.valid_body() | changed
    arguments["params"] = operation.valid_query() | arguments.get("params", {})
    return http.request(operation.method, operation.path(ids), headers=bearer | (headers or {}), **arguments)


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def of_operations(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operation", operations, ids=str)


def test_every_route_is_told_of_and_asks_for_a_key() -> None:
    routed = {context.path for context in routing.iter_route_contexts(new_app().routes)}
    undocumented = {path.replace(":path}", "}") for path in routed if path} - set(DOCUMENT["paths"])
    assert undocumented <= OF_THE_DOCUMENT | OPEN
    assert {operation.template for operation in OPERATIONS if operation.key_kind is None} <= OPEN
    for operation in GUARDED:
        assert operation.key_kind == (ADMIN_KEY if "/organization/" in operation.template else PROJECT_KEY)


@of_operations(GUARDED)
def test_without_a_good_key_nothing_is_told_or_changed(
    guarded: Guarded, http: httpx2.Client, operation: Operation
) -> None:
    assert operation.key_kind is not None
    stored = everything_stored(guarded.server)
    answers = [ask(http, operation, guarded.owner.ids)]
    for malformed in ("Bearer", "Basic YTpi", guarded.key_for(operation), f"Token {guarded.key_for(operation)}"):
        answers.append(ask(http, operation, guarded.owner.ids, headers={"authorization": malformed}))
    for key in guarded.keys[operation.key_kind].values():
        answers.append(ask(http, operation, guarded.owner.ids, key=key))
        assert key not in answers[-1].text
    for answer in answers:
        assert code_of(answer) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    # What is there and what is not: one answer, so that nobody learns ids without a key.
    unknown = ask(http, operation, unknown_ids(guarded.owner.ids))
    assert unknown.json() == answers[0].json()
    assert everything_stored(guarded.server) == stored


@of_operations(OF_PROJECTS)
def test_a_reading_key_reads_and_changes_nothing(guarded: Guarded, http: httpx2.Client, operation: Operation) -> None:
    key = key_of_project(guarded.server, guarded.owner.project, scopes=("api.all.read",))
    stored = everything_stored(guarded.server)
    answer = ask(http, operation, guarded.owner.ids, key=key)
    if operation.changes_something:
        assert code_of(answer) == (403, "insufficient_permissions")
    else:
        assert answer.status_code == 200
    assert everything_stored(guarded.server) == stored


@of_operations([operation for operation in OF_PROJECTS if operation.parameters("path")])
def test_what_is_another_projects_is_as_if_it_were_not_there(
    guarded: Guarded, http: httpx2.Client, operation: Operation
) -> None:
    stored = everything_stored(guarded.server)
    theirs, nobodys = guarded.owner.ids, unknown_ids(guarded.owner.ids)
    answers = [ask(http, operation, ids, key=guarded.stranger.key) for ids in (theirs, nobodys)]
    assert [answer.status_code for answer in answers] == [404, 404]
    said = [_without_ids(answer.text, ids) for answer, ids in zip(answers, (theirs, nobodys), strict=True)]
    assert said[0] == said[1]
    assert _told_headers(answers[0]) == _told_headers(answers[1])
    assert everything_stored(guarded.server) == stored


@of_operations([operation for operation in OF_ADMINS if operation.parameters("path")])
def test_an_administrator_finds_things_in_their_own_project_alone(
    guarded: Guarded, http: httpx2.Client, operation: Operation
) -> None:
    ids = guarded.owner.ids
    last = list(operation.parameters("path"))[-1]
    unknown = {**ids, last: unknown_ids(ids)[last]}
    answers = [ask(http, operation, unknown, key=guarded.admin_key)]
    said = [_without_ids(answers[0].text, unknown)]
    if last not in OF_NO_PROJECT:
        elsewhere = {**ids, "project_id": guarded.stranger.id}
        answers.append(ask(http, operation, elsewhere, key=guarded.admin_key))
        said.append(_without_ids(answers[1].text, elsewhere))
    assert {answer.status_code for answer in answers} == {404}
    assert len(set(said)) == 1


@of_operations([operation for operation in OF_PROJECTS if "after" in operation.parameters("query")])
def test_another_projects_id_as_a_cursor_tells_nothing(
    guarded: Guarded, http: httpx2.Client, operation: Operation
) -> None:
    stranger = new_project(guarded.server.database)
    cursors = [*guarded.owner.ids.values(), *unknown_ids(guarded.owner.ids).values()]
    answers = [ask(http, operation, guarded.owner.ids, key=stranger.key, params={"after": id_}) for id_ in cursors]
    theirs, nobodys = answers[: len(answers) // 2], answers[len(answers) // 2 :]
    for one, other in zip(theirs, nobodys, strict=True):
        assert one.status_code == other.status_code
        if one.status_code == 200:
            assert one.json() == other.json()
            assert one.json()["data"] == []


@of_operations(WITH_JSON)
def test_an_unknown_field_is_refused(guarded: Guarded, http: httpx2.Client, operation: Operation) -> None:
    stored = everything_stored(guarded.server)
    for name in ("project_id", "is_admin", "__proto__"):
        body = {**operation.valid_body()["json"], name: guarded.stranger.id}
        answer = ask(http, operation, guarded.owner.ids, key=guarded.key_for(operation), json=body)
        assert code_of(answer) == (400, "unknown_parameter")
        assert answer.json()["error"]["param"] == name
    assert everything_stored(guarded.server) == stored


@of_operations(WITH_FORM)
def test_an_unknown_field_of_a_form_is_refused(guarded: Guarded, http: httpx2.Client, operation: Operation) -> None:
    stored = everything_stored(guarded.server)
    for name in ("project_id", "object_key"):
        form = {**operation.valid_body()["files"], name: (None, b"x")}
        answer = ask(http, operation, guarded.owner.ids, key=guarded.key_for(operation), files=form)
        assert code_of(answer) == (400, "invalid_upload")
        assert answer.json()["error"]["param"] == name
    assert everything_stored(guarded.server) == stored


@of_operations([operation for operation in GUARDED if "limit" in operation.parameters("query")])
def test_a_page_has_a_cap(guarded: Guarded, http: httpx2.Client, operation: Operation) -> None:
    key, cap = guarded.key_for(operation), operation.parameters("query")["limit"]["maximum"]
    assert cap <= 10_000
    assert ask(http, operation, guarded.owner.ids, key=key, params={"limit": cap}).status_code == 200
    for limit in (cap + 1, 0, -1, 10**400, "NaN", "1e3", "Infinity", "٣", "", "\0"):
        answer = ask(http, operation, guarded.owner.ids, key=key, params={"limit": limit})
        assert code_of(answer) == (400, "invalid_value"), limit
    answer = ask(http, operation, guarded.owner.ids, key=key, params={"limits": "1"})
    assert code_of(answer) == (400, "unknown_parameter")


@pytest.mark.parametrize("template", DOCUMENT["paths"])
def test_a_method_that_a_path_has_not_is_a_405(guarded: Guarded, http: httpx2.Client, template: str) -> None:
    methods = {operation.method for operation in OPERATIONS if operation.template == template}
    path = next(operation for operation in OPERATIONS if operation.template == template).path(guarded.owner.ids)
    for method in (*METHODS, "OPTIONS", "TRACE", "SEARCH"):
        if method not in methods:
            answer = http.request(method, path, headers={"authorization": f"Bearer {guarded.admin_key}"})
            assert code_of(answer) == (405, "method_not_allowed")
            assert {each.strip() for each in answer.headers["allow"].split(",")} == methods


@of_operations(WITH_JSON)
def test_a_body_has_a_cap_told_or_found(guarded: Guarded, http: httpx2.Client, operation: Operation) -> None:
    chunk = b" " * 65_536
    chunked = iter([chunk] * (MAX_BODY_BYTES // len(chunk) + 2))
    for content in (b" " * (MAX_BODY_BYTES + 1), chunked):
        answer = ask(
            http,
            operation,
            guarded.owner.ids,
            key=guarded.key_for(operation),
            headers={"content-type": "application/json"},
            content=content,
        )
        assert code_of(answer) == (413, "payload_too_large")


@of_operations(WITH_FORM)
def test_a_form_that_tells_of_too_much_is_refused_unread(guarded: Guarded, operation: Operation) -> None:
    head = (
        f"{operation.method} {operation.path(guarded.owner.ids)} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {guarded.key_for(operation)}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {MAX_FORM_BYTES}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", guarded.server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


@of_operations(WITH_JSON)
def test_no_number_is_too_strange_to_be_refused(guarded: Guarded, http: httpx2.Client, operation: Operation) -> None:
    stored = everything_stored(guarded.server)
    valid = operation.valid_body()["json"]
    for path in _numbers(operation.body_model):
        for number in HUGE_NUMBERS:
            content = _with_number(valid, path, number)
            answer = _send(guarded, http, operation, content)
            if math.isfinite(float(number)) and answer.status_code in (200, 400, 404):
                continue  # a large number may be a good one, for a body that something else is wrong with
            assert answer.status_code == 400, (path, number, answer.text)
            assert answer.json()["error"]["message"]
    if not _numbers(operation.body_model):
        assert code_of(_send(guarded, http, operation, '{"a": NaN}'))[0] == 400
    assert len(everything_stored(guarded.server)) >= len(stored)


@of_operations(WITH_JSON)
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"a"', id="cut"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b'{"name": "\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"name": "a\\u0000"}', id="NUL"),
        pytest.param(b'{"name": "a", "name": "b"}', id="twice"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b"[" * 500_000, id="deep lists"),
    ],
)
def test_what_is_no_json_object_is_refused(
    guarded: Guarded, http: httpx2.Client, operation: Operation, content: bytes
) -> None:
    assert code_of(_send(guarded, http, operation, content))[0] == 400


def _send(guarded: Guarded, http: httpx2.Client, operation: Operation, content: str | bytes) -> httpx2.Response:
    return ask(
        http,
        operation,
        guarded.owner.ids,
        key=guarded.key_for(operation),
        headers={"content-type": "application/json"},
        content=content,
    )


def _without_ids(text: str, ids: dict[str, str]) -> str:
    for name, id_ in ids.items():
        text = text.replace(id_, f"<{name}>")
    return text


def _told_headers(answer: httpx2.Response) -> dict[str, str]:
    return {
        name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date", "content-length")
    }


def _numbers(model: str) -> list[tuple[str, ...]]:
    """The paths to all numbers of a body, by its schema."""
    return sorted(set(_find_numbers(DOCUMENT["components"]["schemas"][model], ())))


def _find_numbers(schema: Document, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number"):
        yield path
    for choice in (*schema.get("anyOf", []), *schema.get("oneOf", [])):
        yield from _find_numbers(choice, path)
    for name, inner in schema.get("properties", {}).items():
        yield from _find_numbers(inner, (*path, name))


def _with_number(body: Document, path: tuple[str, ...], number: str) -> str:
    """The body as JSON with a literal at the path that `json` would not write."""
    changed: Document = json.loads(json.dumps(body))
    owner = changed
    for name in path[:-1]:
        owner = owner.setdefault(name, {})
    owner[path[-1]] = "<number>"
    return json.dumps(changed).replace('"<number>"', number)
