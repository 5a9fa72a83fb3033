"""Object keys: the only place that knows where things lie in the store.

Keys are POSIX paths without a leading slash, relative to the store's root (a folder, or `s3://bucket/prefix`).
A run folder's own names are relative to the run folder, so that a trainer needs nothing but its URI.
"""

from schemas.ids import FileId, JobId, PartId, ProjectId, RunId, UploadId

FILES = "files"
"""Uploaded files, each under its own id."""
PARTS = "uploads"
"""Parts of uploads that are not put together yet."""
RUNS = "runs"
"""Run folders, by job."""
SPEC = "spec.json"
EVENTS = "events"
CHECKPOINTS = "checkpoints"
SFT_CHECKPOINTS = "sft_checkpoints"
"""Of the phase that estimates the reference; a checkpoint of DPO holds what came of it."""
ADAPTER = "adapter"
REFERENCE_AT_START = "reference.safetensors"
"""The reference log-probabilities that the job began with, known ones or none: a later attempt begins with the same."""
METRICS_CSV = "results/step_metrics.csv"
ADAPTER_ARCHIVE = "results/adapter.tar.gz"
STOP = "stop"
"""Written by a driver that was asked to stop, for its workers elsewhere: they look for it between steps."""
OUTCOME = "outcome.json"
"""Written last: the commit mark of a run."""
MANIFEST = "manifest.json"
"""Written last into each checkpoint, with the sha256 of every file in it: its commit mark."""


def file_key(file_id: FileId) -> str:
    return f"{FILES}/{file_id}"


def part_key(upload_id: UploadId, part_id: PartId) -> str:
    return f"{PARTS}/{upload_id}/{part_id}"


def job_prefix(job_id: JobId) -> str:
    """Of all its runs."""
    return f"{RUNS}/{job_id}"


def run_prefix(job_id: JobId, run_id: RunId) -> str:
    return f"{job_prefix(job_id)}/{run_id}"


def job_of(key: str) -> JobId | None:
    """The job whose run wrote the object; None for one that no run wrote."""
    folder, _, rest = key.partition("/")
    return JobId(rest.partition("/")[0]) if folder == RUNS else None


def reference_cache_prefix(project_id: ProjectId) -> str:
    """Where a project's jobs share reference log-probabilities: another project's hits would tell it of our data."""
    return f"references/{project_id}"


def event_chunk(number: int) -> str:
    """Chunks are numbered from 1 without a gap; each is whole JSONL and never rewritten."""
    return f"{EVENTS}/{number:08d}.jsonl"


def checkpoint_prefix(step: int, *, under: str = CHECKPOINTS) -> str:
    return f"{under}/step-{step:08d}"
