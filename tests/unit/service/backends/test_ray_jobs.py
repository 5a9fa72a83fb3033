"""How answers of a Ray head are read, by a head that says what a test needs. The real one is in tests/integration."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schemas.ids import RunId
from service.backends import ray_http
from service.backends.backend import BackendUnavailable, Capacity, RunRequest, RunState
from service.backends.ray_http import RayError, RayHttp
from service.backends.ray_jobs import DriverCommand, RayJobsBackend

RUN = RunId("ftjob-1-1")
REQUEST = RunRequest(RUN, "/runs/1", workers=1, gpus_per_worker=0)
CALLS: dict[str, Callable[[RayJobsBackend], object]] = {
    "submit": lambda backend: backend.submit(REQUEST),
    "status": lambda backend: backend.status(RUN),
    "stop": lambda backend: backend.stop(RUN),
    "capacity": lambda backend: backend.capacity(),
}


class Head(ThreadingHTTPServer):
    """Answers everything with `answer`, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, str] = (200, json.dumps({"submission_id": RUN, "stopped": True}))
        self.bodies: list[bytes] = []
        self.tokens: list[str | None] = []
        self.location: str | None = None
        self.missing_bytes = 0
        self.is_silent = False
        self.has_ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Head

    def do_GET(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("content-length", "0"))))
        self.server.tokens.append(self.headers.get("authorization"))
        if self.server.is_silent:
            self.server.has_ended.wait()
            return
        status, text = self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(text) + self.server.missing_bytes))
        if self.server.location is not None:
            self.send_header("location", self.server.location)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def head() -> Iterator[Head]:
    with Head() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.has_ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def backend(head: Head) -> RayJobsBackend:
    return RayJobsBackend(RayHttp(head.url, token="secret"), DriverCommand("/opt/my python", "/srv/dpo"))


@pytest.mark.parametrize(
    ("job", "state", "detail"),
    [
        ({"status": "PENDING"}, RunState.PENDING, ""),
        ({"status": "RUNNING", "message": "x"}, RunState.RUNNING, ""),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, RunState.ENDED, "exit code 0"),
        ({"status": "FAILED", "driver_exit_code": 137}, RunState.ENDED, "exit code 137"),
        ({"status": "FAILED", "message": "node died\nlogs"}, RunState.ENDED, "node died"),
        ({"status": "STOPPED"}, RunState.ENDED, "stopped"),
    ],
    ids=lambda value: value.get("status") if isinstance(value, dict) else None,
)
def test_a_jobs_status_is_read(
    head: Head, backend: RayJobsBackend, job: dict[str, object], state: RunState, detail: str
) -> None:
    head.answer = (200, json.dumps({"submission_id": RUN, **job}))
    status = backend.status(RUN)
    assert (status.state, status.detail) == (state, detail)


def test_an_unknown_job_is_unknown_and_any_other_trouble_is_no_answer(head: Head, backend: RayJobsBackend) -> None:
    head.answer = (404, "Job does not exist")
    assert backend.status(RUN).state is RunState.UNKNOWN
    head.answer = (500, "GCS is away")
    with pytest.raises(BackendUnavailable, match="GCS is away"):
        backend.status(RUN)
    with pytest.raises(BackendUnavailable):
        backend.stop(RUN)


@pytest.mark.parametrize("answer", [(404, "default backend"), (401, "token"), (403, "token"), (429, "slow down")])
def test_a_head_that_cannot_be_reached_refuses_nothing_and_has_forgotten_nothing(
    head: Head, backend: RayJobsBackend, answer: tuple[int, str]
) -> None:
    head.answer = answer
    for ask in (
        lambda: backend.submit(RunRequest(RUN, "/runs/1", workers=1, gpus_per_worker=0)),
        lambda: backend.status(RUN),
        lambda: backend.stop(RUN),
    ):
        with pytest.raises(BackendUnavailable, match=f"HTTP {answer[0]}: {answer[1]}"):
            ask()


def test_a_head_that_does_not_listen_is_unavailable() -> None:
    with pytest.raises(BackendUnavailable, match="does not answer"):
        RayJobsBackend(RayHttp("http://127.0.0.1:1", token=None)).capacity()


@pytest.mark.parametrize("status", [200, 500])
def test_a_head_that_dies_in_the_middle_of_an_answer_is_unavailable(
    head: Head, backend: RayJobsBackend, status: int
) -> None:
    head.answer, head.missing_bytes = (status, "{}"), 10
    with pytest.raises(BackendUnavailable, match="does not answer"):
        backend.capacity()


@pytest.mark.parametrize("answer", ["<html>We are back soon</html>", '{"status": "SUSPENDED"}'], ids=["page", "json"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_not_rays_api_is_unavailable_and_says_what_to_check(
    head: Head, backend: RayJobsBackend, call: Callable[[RayJobsBackend], object], answer: str
) -> None:
    head.answer = (200, answer)
    with pytest.raises(BackendUnavailable, match=r"else than Ray's API answered \(.+\); check DPO_RAY_ADDRESS"):
        call(backend)


def test_a_log_is_told_by_its_last_lines(head: Head, backend: RayJobsBackend) -> None:
    head.answer = (200, json.dumps({"logs": "".join(f"line {n}\n" for n in range(30))}))
    assert backend.log_tail(RUN).splitlines() == [f"line {n}" for n in range(10, 30)]


@pytest.mark.parametrize("answer", [(500, "ConnectionTimeoutError"), (200, "<html>")], ids=["error", "page"])
def test_a_log_that_cannot_be_had_is_empty(head: Head, backend: RayJobsBackend, answer: tuple[int, str]) -> None:
    head.answer = answer
    assert backend.log_tail(RUN) == ""


def test_a_log_on_a_node_that_is_gone_is_empty(
    head: Head, backend: RayJobsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_http, "TIMEOUT_S", 0.05)
    head.is_silent = True
    assert backend.log_tail(RUN) == ""


def test_already_exists_means_submitted(head: Head, backend: RayJobsBackend) -> None:
    head.answer = (500, "Traceback\nValueError: Job with submission_id ftjob-1-1 already exists.")
    backend.submit(RunRequest(RUN, "/runs/1", workers=1, gpus_per_worker=0))
    head.answer = (500, "no space left")
    with pytest.raises(BackendUnavailable, match="no space left"):
        backend.submit(RunRequest(RUN, "/runs/1", workers=1, gpus_per_worker=0))
    head.answer = (400, "bad runtime_env")
    with pytest.raises(RayError, match="bad runtime_env"):
        backend.submit(RunRequest(RUN, "/runs/1", workers=1, gpus_per_worker=0))


@pytest.mark.parametrize(
    ("workers", "gpus", "booked"), [(1, 0, (1, 0)), (1, 1, (1, 1)), (4, 1, (0, 0))], ids=["cpu", "gpu", "group"]
)
def test_a_submission_books_what_the_driver_itself_uses(
    head: Head, backend: RayJobsBackend, workers: int, gpus: int, booked: tuple[int, int]
) -> None:
    backend.submit(RunRequest(RUN, "/runs/a b", workers=workers, gpus_per_worker=gpus))
    sent = json.loads(head.bodies[-1])
    assert sent["submission_id"] == RUN
    assert sent["entrypoint"] == "exec '/opt/my python' -m trainers.ray_train ftjob-1-1"
    assert sent["runtime_env"] == {
        "env_vars": {
            "DPO_RUN_FOLDER_URI": "/runs/a b",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": "/srv/dpo",
        }
    }
    assert (sent["entrypoint_num_cpus"], sent["entrypoint_num_gpus"]) == booked
    assert head.tokens[-1] == "Bearer secret"


def test_the_capacity_counts_living_nodes(head: Head, backend: RayJobsBackend) -> None:
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 8.0, "GPU": 2.0, "memory": 1.0}},
        {"state": "ALIVE", "resources_total": {"CPU": 4.0}},
        {"state": "DEAD", "resources_total": {"CPU": 99.0}},
    ]
    head.answer = (200, json.dumps({"data": {"result": {"total": 3, "result": nodes}}}))
    assert backend.capacity() == Capacity(cpus=12, gpus=2)
    head.answer = (200, json.dumps({"data": {"result": {"result": []}}}))
    with pytest.raises(BackendUnavailable, match="no node"):
        backend.capacity()


def test_ray_is_told_where_a_bucket_lies_and_no_key_to_it(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPO_S3_ENDPOINT_URL", "https://minio.internal:9000")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "a-secret-of-ours")

    RayJobsBackend(RayHttp(head.url, token="t")).submit(RunRequest(RUN, "s3://bucket/runs/1", 1, 0))

    told = json.loads(head.bodies[0])["runtime_env"]["env_vars"]
    assert told["DPO_S3_ENDPOINT_URL"] == "https://minio.internal:9000"
    assert told["AWS_REGION"] == "eu-central-1"
    assert b"a-secret-of-ours" not in head.bodies[0]


def test_the_token_goes_nowhere_else(head: Head) -> None:
    with Head() as elsewhere:
        thread = threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        head.location = f"{elsewhere.url}/api/jobs/1"
        for status in (301, 302, 303, 307, 308):
            head.answer = (status, "moved")
            with pytest.raises(RayError, match=str(status)):
                RayHttp(head.url, token="secret").get("/api/jobs/1")
        elsewhere.shutdown()
        thread.join()
    assert elsewhere.tokens == []
