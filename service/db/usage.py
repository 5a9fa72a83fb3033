"""What projects use: time of runs and of their GPUs, bytes in the store. Quotas and bills read the same sums."""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Select, case, func, literal, literal_column, or_, select
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.elapsed import EpochSeconds
from service.db.tables import FileRow, JobRow, ModelRow, RunRow, StoredBytesRow, UploadPartRow, UploadRow


@dataclass(frozen=True, slots=True)
class RunUse:
    """Of the runs of a project's jobs on one model."""

    project_id: ProjectId
    model: str
    """As the jobs name it: a base model, or an `ft:` model on one."""
    run_seconds: float
    gpu_seconds: float
    """Each run's seconds times its GPUs."""


@dataclass(frozen=True, slots=True)
class TrainingUse:
    """Of the jobs of a project on one model that succeeded."""

    project_id: ProjectId
    model: str
    tokens: int
    jobs: int


class UsageRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def measure_runs(self, *, since: datetime, until: datetime, project_id: ProjectId | None = None) -> list[RunUse]:
        """Sum up the parts of runs that lie in the span, by project and model; of all projects unless one is named.

        A run counts from its submission to its end as the dispatcher saw it; one that still runs counts to `until`.
        """
        began = case((RunRow.submitted_at < since, since.timestamp()), else_=EpochSeconds(RunRow.submitted_at))
        is_past = or_(RunRow.ended_at.is_(None), RunRow.ended_at > until)
        ended = case((is_past, until.timestamp()), else_=EpochSeconds(RunRow.ended_at))
        query = (
            select(RunRow.project_id, RunRow.model, func.sum(ended - began), func.sum((ended - began) * RunRow.gpus))
            .where(RunRow.submitted_at < until, or_(RunRow.ended_at.is_(None), RunRow.ended_at > since))
            .group_by(RunRow.project_id, RunRow.model)
            .order_by(RunRow.project_id, RunRow.model)
        )
        if project_id is not None:
            query = query.where(RunRow.project_id == project_id)
        return [
            RunUse(ProjectId(project), model, float(seconds), float(gpu_seconds))
            for project, model, seconds, gpu_seconds in self._session.execute(query)
        ]

    def measure_training(self, *, since: datetime, until: datetime) -> list[TrainingUse]:
        """Of the jobs that succeeded in the span, by project and model."""
        query = (
            select(JobRow.project_id, JobRow.model, func.sum(func.coalesce(JobRow.trained_tokens, 0)), func.count())
            .where(JobRow.finished_at >= since, JobRow.finished_at < until, JobRow.status == "succeeded")
            .group_by(JobRow.project_id, JobRow.model)
            .order_by(JobRow.project_id, JobRow.model)
        )
        return [
            TrainingUse(ProjectId(project), model, int(tokens), jobs)
            for project, model, tokens, jobs in self._session.execute(query)
        ]

    def list_stored_bytes(self, *, day: date) -> dict[ProjectId, int]:
        """As last measured on that day, by project."""
        query = select(StoredBytesRow.project_id, StoredBytesRow.size_bytes).where(StoredBytesRow.day == day)
        return {ProjectId(project_id): size for project_id, size in self._session.execute(query)}

    def note_stored_bytes(self, project_id: ProjectId, *, day: date, stored_bytes: int) -> None:
        """The day keeps the latest figure."""
        self._session.merge(StoredBytesRow(day=day, project_id=project_id, size_bytes=stored_bytes))

    def measure_gpu_hours(self, project_id: ProjectId, *, since: datetime, until: datetime) -> float:
        uses = self.measure_runs(since=since, until=until, project_id=project_id)
        return sum(use.gpu_seconds for use in uses) / 3600

    def count_held_gpus(self, project_id: ProjectId) -> int:
        """Of the project's open runs together."""
        query = select(func.coalesce(func.sum(RunRow.gpus), 0))
        held = self._session.scalar(query.where(RunRow.project_id == project_id, RunRow.ended_at.is_(None)))
        return int(held or 0)

    def measure_stored_bytes(self, project_id: ProjectId, *, now: datetime) -> int:
        """Files and results, unpacked adapters, and uploads under way with what they announced."""
        files = select(func.sum(FileRow.size_bytes)).where(FileRow.project_id == project_id)
        # A job's result and its last checkpoint may be one adapter under two names.
        by_key = select(func.max(ModelRow.adapter_bytes).label("size_bytes")).group_by(ModelRow.adapter_key)
        adapters = by_key.where(ModelRow.project_id == project_id).subquery()
        uploads = _uploads_under_way(project_id, now=now).subquery()
        larger = case((uploads.c.held > uploads.c.announced, uploads.c.held), else_=uploads.c.announced)
        queries = (files, select(func.sum(adapters.c.size_bytes)), select(func.sum(larger)))
        return sum(int(self._session.scalar(query) or 0) for query in queries)


def _uploads_under_way(project_id: ProjectId, *, now: datetime) -> Select[tuple[int, int]]:
    """What each announced, while it is in time, and what lies there of it already."""
    held = (
        select(func.coalesce(func.sum(UploadPartRow.size_bytes), 0))
        .where(UploadPartRow.upload_id == UploadRow.id)
        .scalar_subquery()
    )
    announced = case((UploadRow.expires_at > now, UploadRow.size_bytes), else_=literal(0))
    is_pending = UploadRow.status == literal_column("'pending'")  # a partial index serves no bound parameter
    return select(announced.label("announced"), held.label("held")).where(
        UploadRow.project_id == project_id, is_pending
    )
