"""`dpo-service doctor` as an operator runs it, before and after things are mended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.backends.local_ray import LocalRay
from service.db.engine import Database
from service.db.migrate import upgrade
from tests.buckets import Bucket


@pytest.fixture
def environment(tmp_path: Path, bucket: Bucket, models_file: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DPO_DATA_DIR": str(tmp_path / "data"),
        "DPO_BACKEND": "process",
        "DPO_STORAGE_URL": bucket.url,
        "DPO_MODELS_FILE": str(models_file),
        "DPO_DATABASE_URL": f"sqlite:///{tmp_path / 'db'}",
    }


def doctor(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "doctor"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_what_is_amiss_is_told_and_mended_step_by_step(
    environment: dict[str, str], tmp_path: Path, bucket: Bucket
) -> None:
    sick = doctor(environment | {"AWS_SECRET_ACCESS_KEY": "a-wrong-secret", "DPO_MODELS_FILE": "/no/models.toml"})

    assert sick.returncode == 1
    assert "Traceback" not in sick.stdout + sick.stderr
    for told in (
        "run `dpo-service migrate`",
        "access was refused",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "/no/models.toml",
        "3 of 5 checks failed.",
    ):
        assert told in sick.stdout
    assert "a-wrong-secret" not in sick.stdout + sick.stderr

    database = Database(environment["DPO_DATABASE_URL"])
    upgrade(database.engine)
    database.close()
    well = doctor(environment)

    assert well.returncode == 0, well.stdout + well.stderr
    assert well.stdout.endswith("All is well.\n")
    assert "tiny: " in well.stdout
    assert (bucket.object_keys(), bucket.unfinished()) == ([], [])


def test_a_ray_that_runs_is_told_with_its_cores_and_asks_for_its_token(
    environment: dict[str, str], local_ray: LocalRay
) -> None:
    address, token = local_ray.address, local_ray.token
    with_ray = environment | {"DPO_BACKEND": "ray", "DPO_RAY_ADDRESS": address}

    locked_out = doctor(with_ray)
    assert locked_out.returncode == 1
    assert "it asks for a token: set DPO_RAY_TOKEN" in locked_out.stdout
    assert "it refuses the token" in doctor(with_ray | {"DPO_RAY_TOKEN": "another"}).stdout
    let_in = doctor(with_ray | {"DPO_RAY_TOKEN": token}).stdout
    assert f"{address}: {os.cpu_count()} CPUs, 0 GPUs" in let_in
    assert token not in let_in
