"""A group of workers on CPUs beside what others have booked on the cluster, their run folder in a bucket."""

import json
import re
from pathlib import Path

import pytest

from schemas.ids import RunId
from schemas.run_layout import OUTCOME
from schemas.run_record import Outcome
from service.backends.backend import RunRequest, RunState
from service.backends.local_ray import LocalRay, python_for_ray
from tests.buckets import NAME, Bucket
from tests.integration.serving import wait_until
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import make_run

FIVE_CORES = 'exec "$0" -m ray.scripts.scripts "$@" --num-cpus=5'
BOOKED = {"submission_id": "somebody-elses", "entrypoint": "exec sleep 600", "entrypoint_num_cpus": 2}


def test_two_workers_start_where_others_hold_two_of_five_cores_and_share_all_of_them(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    spec = make_run(tmp_path / "run", save_tiny_model(tmp_path / "model"), workers=2)
    for path in (tmp_path / "run").iterdir():
        bucket.client().upload_file(str(path), NAME, f"{bucket.prefix}/run/{path.name}")
    ray = LocalRay(tmp_path / "ray", ray_command=("/bin/sh", "-c", FIVE_CORES, python_for_ray(tmp_path)))
    try:
        backend = ray.start()
        ray.http.post("/api/jobs/", json.dumps(BOOKED).encode())
        wait_until(lambda: backend.status(RunId("somebody-elses")).state is RunState.RUNNING)
        run = RunRequest(RunId(spec.run_id), f"{bucket.url}/run", workers=2, gpus_per_worker=0)
        backend.submit(run)
        wait_until(lambda: backend.status(run.run_id).state is RunState.ENDED)
        log = json.loads(ray.http.get(f"/api/jobs/{run.run_id}/logs"))["logs"]
        told = ray.http.get(f"/api/jobs/{run.run_id}").decode()
    finally:
        ray.close()
    outcome = bucket.client().get_object(Bucket=NAME, Key=f"{bucket.prefix}/run/{OUTCOME}")["Body"].read()
    assert Outcome.model_validate_json(outcome).status == "succeeded"
    # Ray Train's own folder is gone.
    assert not any("/ray_train/" in key for key in bucket.object_keys())
    assert bucket.server.secret_key not in log + told
    # Ray tells a line once that several workers print.
    assert set(re.findall(r'"run_started", "threads": (\d+)', log)) == {"2"}
