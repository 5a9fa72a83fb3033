"""Submit a job: everything that can be told at once is checked, then its row and first events are written together.

The table is the queue: nothing else is told, the dispatcher finds the row.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from schemas.fine_tuning import CreateJobRequest, FineTuningJob
from schemas.ids import JobId, ProjectId
from service.clock import Clock
from service.db.engine import Database
from service.db.events import EventRepository, NewEvent
from service.db.files import FileRepository
from service.db.jobs import JobRepository
from service.db.models import ModelRepository
from service.db.once import OncePer, create_once
from service.db.projects import ProjectRepository
from service.db.tables import JobRow, ModelRow
from service.identifiers import new_job_id
from service.jobs.combinations import check_combinations
from service.jobs.continued_lora import resolve_continued_lora
from service.jobs.job_errors import FileNotUsable, ModelNotFound
from service.jobs.job_rate import check_job_rate
from service.jobs.model_catalog import explain_unknown
from service.jobs.presentation import present_job
from service.jobs.quotas import check_gpus, check_place_in_queue
from service.jobs.resources import resolve_gpus
from service.nearest import did_you_mean, shown
from service.registry import Registry
from service.telemetry.tracing import current_traceparent

MAX_SEED = 2_147_483_647
PROJECT_CHARACTERS = 64
ID_CHARACTERS = 12
"""Of the model's name: the last hex digits of the job's UUIDv7, all of them random."""


@dataclass(frozen=True, slots=True)
class Submission:
    project_id: ProjectId
    request: CreateJobRequest
    once_per: OncePer | None


def submit_job(submission: Submission, *, database: Database, registry: Registry, clock: Clock) -> FineTuningJob:
    """Raises: ModelNotFound, FileNotUsable, InvalidJob, QuotaExceeded, TooManyRequests, IdempotencyKeyReused."""
    now = clock()

    def create(session: Session) -> FineTuningJob:
        return present_job(_create_job(session, submission.project_id, submission.request, registry, now=now))

    return create_once(database, submission.once_per, create, answer_type=FineTuningJob, now=now)


def _create_job(
    session: Session, project_id: ProjectId, request: CreateJobRequest, registry: Registry, *, now: datetime
) -> JobRow:
    check_place_in_queue(session, project_id)
    base_model, tuned = _find_model(session, project_id, request.model, registry)
    check_job_rate(session, project_id, base_model, now=now)
    check_combinations(request, registry[base_model])
    if tuned is not None:
        request = _with_lora_of(session, tuned, request)
    gpus = resolve_gpus(request.resources, registry[base_model])
    check_gpus(session, project_id, gpus=gpus, now=now)
    for param, file_id in (("training_file", request.training_file), ("validation_file", request.validation_file)):
        if file_id is not None:
            _check_file(session, project_id, file_id, param=param, now=now)
    job_id = new_job_id()
    name = fine_tuned_model_name(
        base_model, project=_project_name(session, project_id), suffix=request.suffix, job_id=job_id
    )
    job = _new_row(job_id, project_id, request, fine_tuned_model=name, gpus=gpus, now=now)
    JobRepository(session).add(job, metadata=request.metadata or {})
    EventRepository(session).append(job_id, _first_events(job))
    session.refresh(job)
    return job


def fine_tuned_model_name(base_model: str, *, project: str, suffix: str | None, job_id: JobId) -> str:
    """`ft:MODEL:PROJECT:SUFFIX:ID`; an absent suffix leaves its place empty, as at OpenAI."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", project)[:PROJECT_CHARACTERS]
    return f"ft:{base_model}:{readable}:{suffix or ''}:{job_id[-ID_CHARACTERS:]}"


def _find_model(session: Session, project_id: ProjectId, name: str, registry: Registry) -> tuple[str, ModelRow | None]:
    """The registry's id of the model that training starts from, and the row of the `ft:` model on it."""
    if name in registry:
        return name, None
    tuned = ModelRepository(session).find(project_id, name)
    if tuned is None:
        raise ModelNotFound(explain_unknown(session, project_id, name, registry), param="model")
    if tuned.base_model not in registry:
        raise ModelNotFound(
            f"The model {shown(name)} was tuned from {shown(tuned.base_model)}, which is no longer in the registry; "
            f"{did_you_mean(tuned.base_model, registry, kind='base models')}",
            param="model",
        )
    return tuned.base_model, tuned


def _with_lora_of(session: Session, tuned: ModelRow, request: CreateJobRequest) -> CreateJobRequest:
    """Now, since a stored request no longer knows which of its options were given."""
    made_by = JobRepository(session).find(ProjectId(tuned.project_id), tuned.job_id)
    assert made_by is not None, f"{tuned.name} outlived the job that made it"
    dpo = request.method.dpo
    lora = resolve_continued_lora(dpo.lora, present_job(made_by).method.dpo.lora, model=tuned.name)
    method = request.method.model_copy(update={"dpo": dpo.model_copy(update={"lora": lora})})
    return request.model_copy(update={"method": method})


def _check_file(session: Session, project_id: ProjectId, file_id: str, *, param: str, now: datetime) -> None:
    file = FileRepository(session).find(project_id, file_id, now=now)
    if file is None:
        raise FileNotUsable(
            f"{param} {shown(file_id)} does not exist; upload it (POST /v1/files) and give its id", param=param
        )
    if file.purpose != "fine-tune":
        raise FileNotUsable(
            f'{param} {shown(file_id)} has the purpose "{file.purpose}"; give a file uploaded with purpose="fine-tune"',
            param=param,
        )


def _project_name(session: Session, project_id: ProjectId) -> str:
    project = ProjectRepository(session).find(project_id)
    return project.name if project is not None else project_id


def _new_row(
    job_id: JobId, project_id: ProjectId, request: CreateJobRequest, *, fine_tuned_model: str, gpus: int, now: datetime
) -> JobRow:
    return JobRow(
        id=job_id,
        project_id=project_id,
        status="validating_files",
        version=0,
        attempt=0,
        event_count=0,
        created_at=now,
        request=request.model_dump(mode="json"),
        model=request.model,
        training_file_id=request.training_file,
        validation_file_id=request.validation_file,
        seed=secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed,
        fine_tuned_model=fine_tuned_model,
        priority=request.priority,
        gpus=gpus,
        result_file_ids=[],
        traceparent=current_traceparent(),
    )


def _first_events(job: JobRow) -> list[NewEvent]:
    files = ", ".join(file for file in (job.training_file_id, job.validation_file_id) if file is not None)
    noun = "training file" if job.validation_file_id is None else "files"
    return [
        NewEvent("job:created", job.created_at, "info", f"Created fine-tuning job: {job.id}"),
        NewEvent("job:validating_files", job.created_at, "info", f"Validating {noun}: {files}"),
    ]
