"""A job row and its files as the run spec: the same job and attempt always give the same document."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from schemas.ids import JobId, ProjectId, RunId
from schemas.run_layout import SPEC, reference_cache_prefix, run_prefix
from schemas.run_spec import AdapterSource, GuardParameters, ModelSource, PreferenceFile, RunSpec
from service.db.runs import RunRepository
from service.db.tables import FileRow, JobRow, ModelRow, RunRow
from service.dispatcher.files_of_job import files_of
from service.dispatcher.job_request import read_method, read_request
from service.dispatcher.model_of_job import find_adapter, model_of
from service.dispatcher.requirements import Requirements, resolve_sharding
from service.jobs import hyperparameters
from service.registry import Registry
from service.storage.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class SpecRows:
    """What a run's spec is made of, as it was at one look."""

    job: JobRow
    run: RunRow
    files: Mapping[str, FileRow]
    """Those that are still there, also of other jobs."""
    adapter: ModelRow | None
    earlier_runs: tuple[RunRow, ...]
    """Newest first."""


def read_spec_rows(
    session: Session, job: JobRow, run: RunRow, files: Mapping[str, FileRow], registry: Registry
) -> SpecRows:
    earlier = () if run.attempt == 1 else RunRepository(session).list_of_job(JobId(job.id))
    earlier_runs = tuple(row for row in earlier if row.attempt < run.attempt)
    return SpecRows(job, run, files, find_adapter(session, job, registry), earlier_runs)


def build_run_spec(rows: SpecRows, store: ObjectStore, registry: Registry) -> RunSpec:
    """Raises: FileGone; ModelGone; UnreadableRequest."""
    job, run = rows.job, rows.run
    request, method = read_request(job), read_method(job)
    model = model_of(job, rows.adapter, registry)
    files = files_of(job, rows.files)
    needed = Requirements.of(run)
    assert job.training_pairs is not None, f"{job.id} was launched before its files were validated"
    numbers = hyperparameters.resolve(method, pairs=job.training_pairs, model=model.entry)
    return RunSpec(
        run_id=run.id,
        job_id=job.id,
        fine_tuned_model=job.fine_tuned_model,
        model=ModelSource(id=model.base_id, uri=model.entry.uri),
        initial_adapter=_adapter_source(store, model.adapter),
        reference=method.reference.type,
        sft=numbers.sft,
        training_file=_preference_file(store, files.training, row_format=job.training_format),
        validation_file=files.validation
        and _preference_file(store, files.validation, row_format=job.validation_format),
        dpo=numbers.dpo,
        lora=numbers.lora,
        precision=numbers.precision,
        quantization=method.quantization,
        seed=job.seed,
        workers=needed.workers,
        gpus_per_worker=needed.gpus_per_worker,
        shards_base=resolve_sharding(request, needed),
        evaluate_every_steps=numbers.evaluate_every_steps,
        guards=None if method.guards is None else GuardParameters(**method.guards.model_dump()),
        checkpoint_every_steps=numbers.checkpoint_every_steps,
        reference_cache=store.uri(reference_cache_prefix(ProjectId(job.project_id))),
        created_at=int(job.created_at.timestamp()),
        resume_from=tuple(run_folder_uri(store, JobId(job.id), RunId(row.id)) for row in rows.earlier_runs),
        traceparent=job.traceparent,
    )


def _adapter_source(store: ObjectStore, adapter: ModelRow | None) -> AdapterSource | None:
    if adapter is None:
        return None
    return AdapterSource(uri=store.uri(adapter.adapter_key), sha256=adapter.adapter_sha256)


def _preference_file(store: ObjectStore, file: FileRow, *, row_format: str | None) -> PreferenceFile:
    return PreferenceFile.model_validate(
        {"file_id": file.id, "uri": store.uri(file.object_key), "sha256": file.sha256, "format": row_format}
    )


def run_folder_uri(store: ObjectStore, job_id: JobId, run_id: RunId) -> str:
    """A store names objects, not folders: the spec's own place tells the folder's."""
    return store.uri(f"{run_prefix(job_id, run_id)}/{SPEC}").removesuffix(f"/{SPEC}")
