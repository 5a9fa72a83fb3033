"""Seconds from the POST of a job to model, LoRA and tokens ready, through `dpo-service serve` and its own local Ray."""

import time
from pathlib import Path

from openai import OpenAI

from tests.benchmarks.cases import Case
from tests.integration.serving import Serve, is_over, processes_of, serving, wait_until

READY = "Training on "
"""How the event begins that a run tells when its preparation is done."""
POLL_S = 0.05


def measure_starts(folder: Path, case: Case, *, model: Path, rounds: int) -> dict[str, list[float]]:
    """One job to warm the cluster up, then `rounds` jobs of one worker and of two, in turns."""
    folder.mkdir()
    registry = folder / "models.toml"
    registry.write_text(
        f'[models.bench]\nuri = "{model}"\nmax_length = 512\nbase_learning_rate = 1e-5\nprecision = "fp32"\ngpus = 0\n'
    )
    with serving(folder / "data", registry, threads=None) as serve:
        client = serve.client()
        file = client.files.create(file=("pairs.jsonl", case.rows.read_bytes()), purpose="fine-tune")
        _start(serve, client, file.id, workers=1)
        starts: dict[str, list[float]] = {"1": [], "2": []}
        for _ in range(rounds):
            for workers, seconds in starts.items():
                seconds.append(_start(serve, client, file.id, workers=int(workers)))
    return starts


def _start(serve: Serve, client: OpenAI, file_id: str, *, workers: int) -> float:
    posted = time.perf_counter()
    job = client.fine_tuning.jobs.create(
        model="bench", training_file=file_id, extra_body={"resources": {"workers": workers}}
    )
    while not any(event.message.startswith(READY) for event in client.fine_tuning.jobs.list_events(job.id).data):
        assert not is_over(client, job), client.fine_tuning.jobs.retrieve(job.id).error
        time.sleep(POLL_S)
    seconds = time.perf_counter() - posted
    client.fine_tuning.jobs.cancel(job.id)
    wait_until(lambda: not processes_of(serve.data_dir, command=job.id))
    return seconds
