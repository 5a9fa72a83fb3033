"""Rows that the dispatcher would have written: events, checkpoints, models, other states of a job."""

from datetime import UTC, datetime
from typing import Any

from openai import OpenAI

from schemas.fine_tuning import JobStatus
from schemas.ids import JobId
from service.db.checkpoints import CheckpointRepository
from service.db.engine import Database
from service.db.events import EventRepository, NewEvent
from service.db.jobs import JobRepository
from service.db.tables import CheckpointRow
from service.identifiers import new_checkpoint_id
from tests.contract.server import ProjectAccess
from tests.model_rows import add_model_row

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAIR = b'{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}\n'


def upload(client: OpenAI, *, name: str = "pairs.jsonl", content: bytes = PAIR) -> str:
    return client.files.create(file=(name, content), purpose="fine-tune").id


def submit(client: OpenAI, **job: Any) -> str:
    return client.fine_tuning.jobs.create(**({"model": "tiny-llama", "training_file": upload(client)} | job)).id


def move(database: Database, job_id: str, *, seen: JobStatus, to: JobStatus, **changes: Any) -> None:
    with database.write() as session:
        assert JobRepository(session).advance(JobId(job_id), seen=seen, to=to, changes=changes)


def finish(database: Database, job_id: str, *, to: JobStatus = "succeeded", **changes: Any) -> None:
    move(database, job_id, seen="validating_files", to="queued")
    move(database, job_id, seen="queued", to="running", started_at=NOW)
    move(database, job_id, seen="running", to=to, finished_at=NOW, **changes)


def add_step_events(database: Database, job_id: str, steps: range) -> None:
    events = [
        NewEvent(f"step:{step}", NOW, "info", f"Step {step}", {"step": step, "train_loss": 0.5}, type="metrics")
        for step in steps
    ]
    with database.write() as session:
        EventRepository(session).append(JobId(job_id), events)


def checkpoint_model(job_id: str, step: int) -> str:
    return f"ft:tiny-llama:default::{job_id[-12:]}:ckpt-step-{step}"


def add_checkpoint(database: Database, job_id: str, step: int) -> str:
    checkpoint = CheckpointRow(
        id=new_checkpoint_id(),
        job_id=job_id,
        step=step,
        model_name=checkpoint_model(job_id, step),
        created_at=NOW,
        train_loss=0.6,
        train_mean_token_accuracy=0.4,
        valid_loss=0.65,
        valid_mean_token_accuracy=None,
    )
    with database.write() as session:
        assert CheckpointRepository(session).add_once(checkpoint)
        job = JobRepository(session).find_any(JobId(job_id))
        assert job is not None
    add_model_row(database, job.project_id, job_id, checkpoint.model_name)
    return checkpoint.id


def add_model(
    database: Database, project: ProjectAccess, job_id: str, *, name: str, adapter_key: str = "runs/a/adapter"
) -> None:
    add_model_row(database, project.id, job_id, name, adapter_key=adapter_key)
