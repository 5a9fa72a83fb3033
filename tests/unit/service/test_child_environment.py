"""What the processes that we start are told of our environment, and what never."""

import json
from pathlib import Path

import pytest

from schemas.ids import RunId
from service.backends.backend import RunRequest
from service.backends.local_ray import environment_of_ray
from service.backends.ray_jobs import DriverCommand, submission_body
from service.child_environment import child_environment
from service.settings import Settings

SECRET = "hunter2"
OTHERS = ("PGPASSWORD", "PGPASSFILE", "RAY_AUTH_TOKEN", "dpo_bootstrap_key")


@pytest.fixture(autouse=True)
def _every_setting_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*(f"DPO_{field.upper()}" for field in Settings.model_fields), *OTHERS):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("DPO_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for the bucket")


def test_trainers_get_none_of_the_services_secrets() -> None:
    told = child_environment()
    assert SECRET not in told.values()
    assert told["AWS_SECRET_ACCESS_KEY"] == "for the bucket"
    assert told["DPO_S3_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert "PATH" in told


def test_the_local_ray_gets_its_own_token_and_no_other_secret(tmp_path: Path) -> None:
    told = environment_of_ray(tmp_path, "its own")
    assert SECRET not in told.values()
    assert told["RAY_AUTH_TOKEN"] == "its own"


def test_a_submission_to_ray_holds_ids_and_where_the_run_lies() -> None:
    request = RunRequest(RunId("ftjob-1-1"), "s3://bucket/runs/ftjob-1-1", workers=1, gpus_per_worker=0)
    body = submission_body(request, DriverCommand("python", None))
    assert SECRET.encode() not in body
    assert b"for the bucket" not in body
    said = json.loads(body)
    assert said["entrypoint"] == "exec python -m trainers.ray_train ftjob-1-1"
    variables = said["runtime_env"].pop("env_vars")
    assert said["runtime_env"] == {}
    assert set(variables) <= {
        "DPO_RUN_FOLDER_URI",
        "DPO_S3_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "OMP_WAIT_POLICY",
        "RAY_JOB_STOP_WAIT_TIME_S",
    }
