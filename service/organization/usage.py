"""What projects used on a day: time of runs, tokens of jobs that succeeded, bytes in the store."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from schemas.usage import BucketPage, FineTuningUsage
from service.db.usage import UsageRepository
from service.organization.days import Day, Span, bucket_page
from service.organization.organization import Organization
from service.registry import base_model_of


@dataclass(frozen=True, slots=True)
class Used:
    gpu_seconds: float = 0.0
    run_seconds: float = 0.0
    trained_tokens: int = 0
    succeeded_jobs: int = 0
    stored_bytes: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.gpu_seconds + other.gpu_seconds,
            self.run_seconds + other.run_seconds,
            self.trained_tokens + other.trained_tokens,
            self.succeeded_jobs + other.succeeded_jobs,
            self.stored_bytes + other.stored_bytes,
        )


Key = tuple[ProjectId, str | None]
"""Project and base model; no model for stored bytes."""


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """What is empty filters nothing."""

    project_ids: Sequence[str] = ()
    models: Sequence[str] = ()

    def lets_through(self, key: Key) -> bool:
        project_id, model = key
        is_asked_project = not self.project_ids or project_id in self.project_ids
        return is_asked_project and (not self.models or model in self.models)


def list_usage(
    organization: Organization, span: Span, matching: UsageFilter, *, by_project: bool, by_model: bool
) -> BucketPage[FineTuningUsage]:
    """Raises: InvalidRequest, for a page that is none."""

    def measure(day: Day) -> list[FineTuningUsage]:
        with organization.database.read() as session:
            used = measure_day(session, day)
        groups: dict[tuple[str | None, str | None], Used] = defaultdict(Used)
        for key, part in used.items():
            if matching.lets_through(key):
                groups[key[0] if by_project else None, key[1] if by_model else None] += part
        return [_present(project_id, model, part) for (project_id, model), part in _sorted(groups)]

    return bucket_page(span, measure)


def measure_day(session: Session, day: Day) -> dict[Key, Used]:
    usage = UsageRepository(session)
    used: dict[Key, Used] = defaultdict(Used)
    for run in usage.measure_runs(since=day.start, until=day.end):
        part = Used(gpu_seconds=run.gpu_seconds, run_seconds=run.run_seconds)
        used[run.project_id, base_model_of(run.model)] += part
    for trained in usage.measure_training(since=day.start, until=day.end):
        part = Used(trained_tokens=trained.tokens, succeeded_jobs=trained.jobs)
        used[trained.project_id, base_model_of(trained.model)] += part
    for project_id, stored_bytes in usage.list_stored_bytes(day=day.start.date()).items():
        used[project_id, None] += Used(stored_bytes=stored_bytes)
    return used


def _sorted(
    groups: dict[tuple[str | None, str | None], Used],
) -> list[tuple[tuple[str | None, str | None], Used]]:
    return sorted(groups.items(), key=lambda item: (item[0][0] or "", item[0][1] or ""))


def _present(project_id: str | None, model: str | None, used: Used) -> FineTuningUsage:
    return FineTuningUsage(
        object="organization.usage.fine_tuning.result",
        project_id=project_id,
        model=model,
        gpu_seconds=round(used.gpu_seconds, 3),
        run_seconds=round(used.run_seconds, 3),
        trained_tokens=used.trained_tokens,
        succeeded_jobs=used.succeeded_jobs,
        stored_bytes=used.stored_bytes,
    )
