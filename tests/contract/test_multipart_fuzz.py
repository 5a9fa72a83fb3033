"""Multipart bodies of every shape against the forms: a clear answer, and what is not taken leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.belongings import Belongings, everything_stored, new_admin, new_belongings
from tests.contract.operations import WITH_FORM, Operation
from tests.contract.rows import PAIR
from tests.contract.server import Server, running_server

pytestmark = pytest.mark.slow

EXAMPLES = 120
GOOD_TYPE = "multipart/form-data; boundary=b"
TYPES = st.sampled_from(
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="b"',
        'multipart/form-data; boundary="b',
        "multipart/form-data; boundary=b; boundary=c",
        "multipart/form-data; boundary=" + "b" * 300,
        "multipart/form-data; boundary*=UTF-8''b",
        "multipart/mixed; boundary=b",
        "application/json",
        "application/x-www-form-urlencoded",
        "b",
        ";;;",
        "",
    ]
)
GOOD_PARTS = {
    "file": b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + PAIR,
    "purpose": b'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune',
    "data": b'Content-Disposition: form-data; name="data"; filename="part"\r\n\r\n' + PAIR,
}
PIECES = st.sampled_from(
    [
        b"\r\n--b\r\n",
        b"\r\n--b--\r\n",
        b"--b",
        b"--",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\0",
        b"\xff\xfe",
        b":",
        b'Content-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n',
        b'Content-Disposition: form-data; name="purpose"; name="file"\r\n',
        b"Content-Disposition: form-data\r\n",
        b"Content-Disposition: form-data; name*=UTF-8''file%00\r\n",
        b'Content-Disposition: attachment; name="data"; filename="' + b"x" * 5_000 + b'"\r\n',
        b'Content-Disposition: form-data; name="purpose"\r\nContent-Length: -1\r\n',
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Type: multipart/mixed; boundary=c\r\n",
        b"X: " + b"y" * 20_000 + b"\r\n",
        b"X" * 20_000,
        b"X: y\r\n" * 100,
        *GOOD_PARTS.values(),
    ]
)


def good_body(operation: Operation) -> bytes:
    names = ["data"] if "parts" in operation.template else ["purpose", "file"]
    return b"".join(b"--b\r\n%b\r\n" % GOOD_PARTS[name] for name in names) + b"--b--\r\n"


@st.composite
def bodies(draw: st.DrawFn, good: bytes) -> bytes:
    """The good one with some of it cut out, doubled or written over; or pieces in any order."""
    if draw(st.integers(0, 3)) == 0:
        return b"".join(draw(st.lists(PIECES, max_size=12)))
    body = good
    for _ in range(draw(st.integers(0, 3))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
        between = draw(st.one_of(st.just(b""), PIECES, st.binary(max_size=20), st.just(body[start:end] * 2)))
        body = body[:start] + between + body[end:]
    return body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("forms")) as running:
        yield running


@pytest.fixture(scope="module")
def mine(server: Server) -> Belongings:
    return new_belongings(server, new_admin(server))


@pytest.fixture(scope="module")
def connected(server: Server, mine: Belongings) -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30, base_url=server.url, headers=mine.project.headers, verify=False) as client:
        yield client


@pytest.mark.parametrize("operation", WITH_FORM, ids=str)
def test_any_form_is_taken_whole_or_leaves_nothing(
    server: Server, mine: Belongings, connected: httpx2.Client, operation: Operation
) -> None:
    good = good_body(operation)
    documented = {int(status) for status in operation.described["responses"]}
    taken = 0

    def send(content_type: str, body: bytes) -> int:
        before = stored_in(server)
        headers = {"content-type": content_type}
        answer = connected.request(operation.method, operation.path(mine.ids), headers=headers, content=body)
        assert answer.status_code in documented - {500, 503}, answer.text
        if answer.status_code == 200:
            assert len(stored_in(server)) == len(before) + 3  # a row, its object's key, and the object
        else:
            assert answer.json()["error"]["message"]
            assert stored_in(server) == before
        return answer.status_code

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of(st.just(GOOD_TYPE), st.just(GOOD_TYPE), TYPES), bodies(good))
    def holds(content_type: str, body: bytes) -> None:
        nonlocal taken
        taken += send(content_type, body) == 200

    assert send(GOOD_TYPE, good) == 200
    holds()
    assert 0 < taken < EXAMPLES


def stored_in(server: Server) -> list[str]:
    """Rows, objects' keys, and every file that lies in the store's folder, half-written ones too."""
    files = [str(path) for path in Path(server.store_root).rglob("*") if path.is_file()]
    return everything_stored(server) + files
