"""`serve` with its store in a bucket of a real S3 server, and trainers that find it by their environment alone.

`test_group_on_cpus` and `test_cluster_kills` have those of a Ray cluster.
"""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import OpenAI

from tests.buckets import NAME, Bucket
from tests.faulty_network import Relay, relayed
from tests.integration.serving import (
    KEY,
    LISTENING,
    PAIRS,
    TRAINERS,
    Serve,
    create_job,
    messages_of,
    processes_of,
    serving,
    steps_of,
    wait_for_end,
    wait_for_step,
    wait_until,
)

PROCESSES = ("--backend", "process")
EPOCHS = 12


@pytest.fixture
def storage_url(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whatever is served in this test keeps its objects there."""
    monkeypatch.setenv("DPO_STORAGE_URL", bucket.url)
    return bucket.url


@pytest.fixture
def relay(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    with relayed(bucket.server.endpoint_url) as relay:
        monkeypatch.setenv("DPO_S3_ENDPOINT_URL", relay.url)
        yield relay


@pytest.fixture
def models_in_the_bucket(bucket: Bucket, models_file: Path, tmp_path: Path) -> Path:
    """The registry, its model a folder of the bucket."""
    for path in (models_file.parent / "tiny").iterdir():
        bucket.client().upload_file(str(path), NAME, f"{bucket.prefix}/models/tiny/{path.name}")
    registry = tmp_path / "models.toml"
    registry.write_text(models_file.read_text().replace(str(models_file.parent / "tiny"), f"{bucket.url}/models/tiny"))
    return registry


def ready(client: OpenAI) -> httpx2.Response:
    return httpx2.get(f"{str(client.base_url).removesuffix('/v1/')}/readyz", timeout=30)


def left_by(serve: Serve, bucket: Bucket) -> str:
    """Everything that the service and its trainers wrote where others read it."""
    logs = [path.read_text() for path in serve.data_dir.glob("processes/*/log")]
    client = bucket.client()
    told = [
        client.get_object(Bucket=NAME, Key=f"{bucket.prefix}/{key}")["Body"].read()
        for key in bucket.object_keys()
        if key.endswith((".json", ".jsonl"))
    ]
    return "\n".join([serve.output, *logs, *(content.decode() for content in told)])


@pytest.mark.usefixtures("storage_url")
def test_a_job_from_upload_to_a_loaded_adapter_and_another_that_takes_its_reference(
    tmp_path: Path, bucket: Bucket, models_in_the_bucket: Path
) -> None:
    asked: list[httpx2.Request] = []
    with serving(tmp_path / "data", models_in_the_bucket, *PROCESSES) as serve:
        url = str(serve.client().base_url)
        http = httpx2.Client(timeout=30, event_hooks={"request": [asked.append]}, follow_redirects=True)
        client = OpenAI(base_url=url, api_key=KEY, http_client=http)
        job = wait_for_end(client, create_job(client))
        assert job.status == "succeeded", job.error
        assert client.files.content(str(job.training_file)).read() == PAIRS
        metrics, archive = (client.files.content(file_id).read() for file_id in job.result_files)
        assert metrics.startswith(b"step,")
        second = wait_for_end(client, create_job(client))
        assert second.status == "succeeded", second.error
        assert "Reference log-probs: 16 pairs from the cache" in messages_of(client, second)
        assert bucket.server.secret_key not in left_by(serve, bucket)
        http.close()

    at_the_store = [
        request for request in asked if request.url.netloc.decode() == urlsplit(bucket.server.endpoint_url).netloc
    ]
    assert len(at_the_store) == 3
    assert not any("authorization" in request.headers for request in at_the_store)
    assert KEY not in "".join(str(request.url) for request in at_the_store)
    assert bucket.unfinished() == []
    assert load_adapter(archive, tmp_path / "adapter", base=bucket) == {"default"}


def load_adapter(archive: bytes, folder: Path, *, base: Bucket) -> set[str]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from trainers.model_copy import local_copy

    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.0 to 3.11.3 have none
        packed.extractall(folder)
    with local_copy(f"{base.url}/models/tiny") as model:
        loaded: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder)
    return set(loaded.peft_config)


@pytest.mark.usefixtures("storage_url")
def test_a_store_that_goes_away_with_the_trainer_holds_jobs_up_and_they_go_on_from_the_bucket(
    tmp_path: Path, bucket: Bucket, models_file: Path, relay: Relay
) -> None:
    with serving(tmp_path / "data", models_file, *PROCESSES) as serve:
        client = serve.client()
        running = create_job(client, epochs=EPOCHS)
        file = client.files.create(file=("pairs.jsonl", PAIRS), purpose="fine-tune")
        wait_for_step(client, running, 4)
        wait_until(lambda: any(key.endswith("/manifest.json") for key in bucket.object_keys()))

        relay.go_down()
        kill_trainers(bucket)
        answer = ready(client)
        assert answer.status_code == 503
        assert "store: not writable (the object store does not answer)" in answer.json()["error"]["message"]
        waiting = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, method={"type": "dpo"})
        refused = client.with_options(max_retries=0)
        with pytest.raises(Exception, match="could not be stored") as caught:
            refused.files.create(file=("pairs.jsonl", PAIRS), purpose="fine-tune")
        assert getattr(caught.value, "status_code", None) == 503
        assert client.fine_tuning.jobs.retrieve(waiting.id).status in ("validating_files", "queued")

        relay.come_back()
        wait_until(lambda: ready(client).status_code == 200)
        for job in (running, waiting):
            ended = wait_for_end(client, job)
            assert ended.status == "succeeded", ended.error
        assert steps_of(client, running) == list(range(1, 4 * EPOCHS + 1))
        assert any(message.startswith("Resumed after step") for message in messages_of(client, running))


def kill_trainers(bucket: Bucket) -> None:
    """All of them: the shell around a trainer and the trainer itself."""
    for process in processes_of(Path(bucket.prefix), command=TRAINERS):
        process.kill()
    wait_until(lambda: processes_of(Path(bucket.prefix), command=TRAINERS) == [])


def test_a_missing_bucket_is_told_at_the_start(
    tmp_path: Path, bucket: Bucket, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPO_STORAGE_URL", "s3://never-made/prefix")
    assert f'create the bucket "never-made" at {bucket.server.endpoint_url}' in refusal(tmp_path, models_file)


@pytest.mark.usefixtures("storage_url")
def test_a_wrong_secret_is_told_at_the_start_and_not_shown(
    tmp_path: Path, models_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    said = refusal(tmp_path, models_file)
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in the bucket" in said
    assert "a-wrong-secret" not in said


@pytest.mark.usefixtures("storage_url")
def test_a_server_that_is_away_is_told_at_the_start(tmp_path: Path, models_file: Path, relay: Relay) -> None:
    relay.go_down()
    assert "the object store does not answer); check DPO_S3_ENDPOINT_URL" in refusal(tmp_path, models_file)


def refusal(tmp_path: Path, models_file: Path) -> str:
    serve = Serve(tmp_path / "data", models_file, *PROCESSES)
    assert serve.process.wait(60) == 1
    serve.stop()
    assert "Traceback" not in serve.output
    assert LISTENING not in serve.output
    return serve.output
