"""Secrets are where they are needed and nowhere else: a job runs, and then everything it left is searched for them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.contract.operations import OF_ADMINS, OF_PROJECTS
from tests.integration.serving import (
    KEY,
    TRAINERS,
    Serve,
    create_job,
    environments_of,
    files_that_hold,
    serving,
    wait_for_end,
    wait_until,
)

OF_THE_SERVICE = ("DPO_BOOTSTRAP_ADMIN_KEY", "DPO_WEBHOOK_KEY", "DPO_RAY_TOKEN", "PGPASSWORD", "RAY_AUTH_TOKEN")
OF_TRAINERS_TOO = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")


@dataclass(frozen=True, slots=True)
class Marked:
    """Secrets by variable."""

    of_service: dict[str, str]
    of_trainers_too: dict[str, str]

    @property
    def all(self) -> list[str]:
        return [KEY, *self.of_service.values(), *self.of_trainers_too.values()]


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Marked:
    made = [{name: secrets.token_hex(32) for name in names} for names in (OF_THE_SERVICE, OF_TRAINERS_TOO)]
    for name, value in (made[0] | made[1]).items():
        monkeypatch.setenv(name, value)
    return Marked(*made)


@pytest.fixture
def serve(tmp_path: Path, models_file: Path, marked: Marked) -> Iterator[Serve]:
    assert marked.all
    with serving(tmp_path / "data", models_file, "--backend", "process") as running:
        yield running


def test_no_secret_is_written_logged_told_or_handed_to_a_trainer(serve: Serve, marked: Marked) -> None:
    client = serve.client()
    job = create_job(client)
    wait_until(lambda: bool(environments_of(serve, command=TRAINERS)))
    environments = environments_of(serve, command=TRAINERS)
    assert environments
    for environment in environments:
        assert set(marked.of_trainers_too.items()) <= set(environment.items())
        assert not {KEY, *marked.of_service.values()} & set(environment.values())
    assert wait_for_end(client, job).status == "succeeded"
    made, told = _walk(serve, str(client.base_url).removesuffix("/v1/"), job, marked)
    assert serve.stop() == 0
    hidden = [*marked.all, *made]
    assert files_that_hold(serve.data_dir, hidden) == []
    assert not [secret for secret in hidden if secret in serve.output]
    assert not [secret for secret in hidden if secret in told]


def _walk(serve: Serve, url: str, job: FineTuningJob, marked: Marked) -> tuple[list[str], str]:
    """Make secrets, ask for everything, and for what is wrong, too; returns them and all that was answered later."""
    admin = {"authorization": f"Bearer {marked.of_service['DPO_BOOTSTRAP_ADMIN_KEY']}"}
    projects = {"authorization": f"Bearer {KEY}"}
    with httpx2.Client(timeout=30, base_url=url, verify=False) as http:
        hook = {"name": "n", "url": "https://hooks.example.com", "event_types": ["fine_tuning.job.failed"]}
        endpoint = http.post("/v1/webhook_endpoints", json=hook, headers=projects).json()
        project = http.post("/v1/organization/projects", json={"name": "p"}, headers=admin).json()
        accounts = f"/v1/organization/projects/{project['id']}/service_accounts"
        account = http.post(accounts, json={"name": "ci"}, headers=admin).json()
        admin_key = http.post("/v1/organization/admin_api_keys", json={"name": "b"}, headers=admin).json()
        ids = {
            "file_id": job.training_file,
            "job_id": job.id,
            "model": "tiny",
            "upload_id": "upload_1",
            "webhook_endpoint_id": endpoint["id"],
            "project_id": project["id"],
            "service_account_id": account["id"],
            "api_key_id": account["api_key"]["id"],
            "key_id": admin_key["id"],
        }
        told = [http.get(path).text for path in ("/readyz", "/openapi.json", "/v1/nothing")]
        for operations, headers in ((OF_PROJECTS, projects), (OF_ADMINS, admin)):
            for operation in operations:
                if operation.method == "GET":
                    path = operation.path(ids)
                    told.append(http.get(path, headers=headers).text)
                    told.append(http.get(path, headers=headers, params={"limit": "x"}).text)
                    told.append(http.get(path, headers={"authorization": f"Basic {KEY}"}).text)
    return [endpoint["signing_secret"], account["api_key"]["value"], admin_key["value"]], "\n".join(told)
