"""Tune a model on preference pairs with the stock `openai` client. This is the code to copy.

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key=KEY)
job = start_job(client, Path("train.jsonl"), Path("valid.jsonl"), model="smollm2-135m-instruct")
job = watch_job(client, job, console=Console())
adapter = download_adapter(client, job, into=Path("adapters"))
"""

import tarfile
import time
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

POLL_S = 0.5
HYPERPARAMETERS = {"beta": 0.1, "n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 4}
"""For some fifty pairs; larger files do well with what "auto" chooses."""


class JobDidNotSucceed(RuntimeError):
    """The job failed or was cancelled; the message is the service's own."""


def start_job(client: OpenAI, training: Path, validation: Path, *, model: str) -> FineTuningJob:
    """Upload both files and queue a DPO job; whatever is not named here is chosen by the service."""
    training_file = client.files.create(file=training, purpose="fine-tune")
    validation_file = client.files.create(file=validation, purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=model,
        training_file=training_file.id,
        validation_file=validation_file.id,
        suffix="demo",
        method={"type": "dpo", "dpo": {"hyperparameters": HYPERPARAMETERS, "evaluation": {"every_steps": 13}}},
    )


def watch_job(client: OpenAI, job: FineTuningJob, *, console: Console) -> FineTuningJob:
    """Poll until the job ends, with a progress bar of its steps. Raises: JobDidNotSucceed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    told: set[str] = set()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(job.status, total=None, numbers="")
        while job.status in ("validating_files", "queued", "running", "paused"):
            time.sleep(POLL_S)
            job = client.fine_tuning.jobs.retrieve(job.id)
            progress.update(bar, description=job.status)
            _show_events(client, job, progress, bar, told=told)
    if job.status != "succeeded":
        raise JobDidNotSucceed(job.error.message if job.error else f"the job ended as {job.status}")
    return job


def download_adapter(client: OpenAI, job: FineTuningJob, *, into: Path) -> Path:
    """Download the adapter archive, unpack it into a folder named after the job and return that folder."""
    folder = into / job.id
    folder.mkdir(parents=True, exist_ok=True)
    archive = into / f"{job.id}.tar.gz"
    for file_id in job.result_files:
        if client.files.retrieve(file_id).filename.endswith(".tar.gz"):
            with client.files.with_streaming_response.content(file_id) as content:
                content.stream_to_file(archive)
    with tarfile.open(archive) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.0 to 3.11.3 have none
        packed.extractall(folder)  # noqa: S202  filtered by the line above
    return folder


def _show_events(client: OpenAI, job: FineTuningJob, progress: Progress, bar: TaskID, *, told: set[str]) -> None:
    """Print messages once each and put the newest step's numbers beside the bar."""
    newest_first = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    for event in reversed(newest_first):
        if event.id in told:
            continue
        told.add(event.id)
        if event.type == "metrics" and isinstance(event.data, dict):
            data = event.data
            numbers = f"loss {data['train_loss']:.4f}  margin {data['rewards_margin']:+.3f}  {_time_left(job)}"
            progress.update(bar, completed=data["step"], total=data["total_steps"], numbers=numbers)
        else:
            progress.console.print(f"  {event.message}", markup=False, highlight=False)


def _time_left(job: FineTuningJob) -> str:
    if job.estimated_finish is None:
        return ""
    left_s = max(0, job.estimated_finish - int(time.time()))
    return f"{left_s // 60}:{left_s % 60:02d} left"
