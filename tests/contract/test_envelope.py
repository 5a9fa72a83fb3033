"""Every answer has a request id, every error the one envelope."""

from pathlib import Path

import httpx2
import pytest
import structlog
from openai import OpenAI

from service.nearest import SHOWN_CHARACTERS
from tests.contract.rows import submit, upload
from tests.contract.server import Server, running_server


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "told"),
    [
        ("GET", "/v1/fine_tuning/job", 404, "unknown_path", "did you mean /v1/fine_tuning/jobs?"),
        ("GET", "/fine_tuning/jobs", 404, "unknown_path", "did you mean /v1/fine_tuning/jobs?"),
        ("GET", "/v1/files/", 404, "unknown_path", "did you mean /v1/files?"),
        (
            "GET",
            "/v1/fine_tuning/jobs/ftjob-12/event",
            404,
            "unknown_path",
            "did you mean /v1/fine_tuning/jobs/{job_id}/e",
        ),
        ("GET", "/", 404, "unknown_path", "/openapi.json"),
        ("POST", "/v1/chat/completions", 404, "unknown_path", "load the adapter into your inference server"),
        ("GET", "/v1/" + "x" * 5_000, 404, "unknown_path", "xxx…"),
        ("PUT", "/v1/files", 405, "method_not_allowed", "use GET or POST"),
        ("DELETE", "/v1/fine_tuning/jobs/ftjob-1", 405, "method_not_allowed", "use GET"),
        ("PATCH", "/v1/models/a/b", 405, "method_not_allowed", "use GET"),
        ("GET", "/v1/files/file-1", 404, "file_not_found", '"file-1" does not exist'),
        ("GET", "/v1/files/file-1/content", 404, "file_not_found", '"file-1" does not exist'),
        ("DELETE", "/v1/files/file-1", 404, "file_not_found", '"file-1" does not exist'),
        ("GET", "/v1/fine_tuning/jobs/ftjob-1", 404, "job_not_found", '"ftjob-1" does not exist'),
        ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel", 404, "job_not_found", '"ftjob-1" does not exist'),
        ("GET", "/v1/fine_tuning/jobs/ftjob-1/checkpoints", 404, "job_not_found", '"ftjob-1" does not exist'),
        ("GET", "/v1/models/tiny-lama", 404, "model_not_found", 'did you mean "tiny-llama"?'),
        ("DELETE", "/v1/models/tiny-lama", 404, "model_not_found", 'did you mean "tiny-llama"?'),
        ("GET", "/v1/models/zzz", 404, "model_not_found", "the models are large-llama, tiny-llama"),
        ("GET", "/v1/files/a%00b", 400, "invalid_value", "NUL"),
    ],
)
def test_errors(http: httpx2.Client, method: str, path: str, status: int, code: str, told: str) -> None:
    answer = http.request(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert set(error) == {"message", "type", "param", "code"}
    assert told in error["message"]
    assert len(error["message"]) < 4 * SHOWN_CHARACTERS
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_405_names_the_methods_in_its_header(http: httpx2.Client) -> None:
    assert http.put("/v1/files").headers["allow"] == "GET, POST"


@pytest.mark.parametrize("given", ["req-1", "a.b_c-9", "x" * 128])
def test_a_plausible_request_id_is_taken_over(http: httpx2.Client, given: str) -> None:
    assert http.get("/livez", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", "<script>"])
def test_another_one_is_replaced(http: httpx2.Client, given: str) -> None:
    assert http.get("/livez", headers={"x-request-id": given}).headers["x-request-id"].startswith("req_")


def test_streams_and_empty_answers_have_request_ids_too(http: httpx2.Client, client: OpenAI) -> None:
    job_path = f"/v1/fine_tuning/jobs/{submit(client)}"
    etag = http.get(job_path).headers["etag"]
    unchanged = http.get(job_path, headers={"if-none-match": etag})
    stream = http.get(f"/v1/files/{upload(client)}/content")
    assert (unchanged.status_code, stream.status_code) == (304, 200)
    assert all(answer.headers["x-request-id"].startswith("req_") for answer in (unchanged, stream))


def test_a_bug_is_a_500_without_its_stack_and_with_a_trace_in_the_log(tmp_path: Path) -> None:
    def bug() -> str | None:
        raise RuntimeError("secret detail")

    with structlog.testing.capture_logs() as logs, running_server(tmp_path, readiness={"cluster": bug}) as broken:
        answer = httpx2.get(f"{broken.url}/readyz", headers={"x-request-id": "req-7"}, verify=False)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (500, "internal_error", "server_error")
    assert "secret detail" not in answer.text
    assert answer.headers["x-request-id"] == "req-7"
    failed, answered = logs
    assert (failed["event"], failed["exc_info"], failed["route"]) == ("request_failed", True, "/readyz")
    assert (answered["event"], answered["status"]) == ("request_answered", 500)


def test_a_database_in_trouble_is_a_503(tmp_path: Path) -> None:
    with running_server(tmp_path) as broken, structlog.testing.capture_logs():
        with broken.database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE api_keys")
        answer = httpx2.get(f"{broken.url}/v1/models", headers={"Authorization": "Bearer k"}, verify=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_health(http: httpx2.Client) -> None:
    for path in ("/livez", "/readyz"):
        asked = http.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
    assert http.get("/livez").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready", "database": "ok", "store": "ok"}


def test_readiness_names_what_is_not_ready(tmp_path: Path) -> None:
    with running_server(tmp_path, readiness={"cluster": lambda: "Ray is not up yet"}) as starting:
        answer = httpx2.get(f"{starting.url}/readyz", verify=False)
        assert httpx2.get(f"{starting.url}/livez", verify=False).status_code == 200
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "Not ready: cluster: Ray is not up yet"


def test_the_openapi_document_tells_of_errors_and_bodies(server: Server) -> None:
    document = httpx2.get(f"{server.url}/openapi.json", verify=False).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, of_path in document["paths"].items()
        for method, operation in of_path.items()
    }
    assert "POST /v1/fine_tuning/jobs" in operations
    for operation in operations.values():
        assert "422" not in operation["responses"]
        errors = [told for status, told in operation["responses"].items() if int(status) >= 400]
        assert errors
        assert all("ErrorEnvelope" in str(told["content"]) for told in errors)
    schemas = document["components"]["schemas"]
    assert set(schemas["CreateJobRequest"]["required"]) == {"model", "training_file"}
    assert set(schemas["FineTuningJob"]["required"]) == set(schemas["FineTuningJob"]["properties"])
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
