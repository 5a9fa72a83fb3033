"""Jobs. Every change of status goes through `advance`, a fenced update, or `QueueRepository.claim`."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, cast

from sqlalchemy import bindparam, case, exists, or_, select, update
from sqlalchemy.orm import Session

from schemas.fine_tuning import JobStatus
from schemas.ids import DispatcherId, JobId, ProjectId
from service.db.committed import tell_on_commit
from service.db.tables import JobMetadataRow, JobRow, RunRow
from service.telemetry.facts import JobMoved


class JobRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, job: JobRow, *, metadata: dict[str, str]) -> None:
        self._session.add(job)
        self._session.flush()
        self._session.add_all(JobMetadataRow(job_id=job.id, key=key, value=value) for key, value in metadata.items())
        self._session.flush()
        tell_on_commit(self._session, JobMoved(job.id, job.project_id, seen=None, to=cast(JobStatus, job.status)))

    def find(self, project_id: ProjectId, job_id: str) -> JobRow | None:
        return self._session.scalars(select(JobRow).where(JobRow.project_id == project_id, JobRow.id == job_id)).first()

    def find_versions(self, job_ids: Collection[str]) -> dict[tuple[ProjectId, str], int]:
        """By project and id."""
        found = self._session.execute(_FIND_VERSIONS, {"job_ids": list(job_ids)})
        return {(ProjectId(project_id), job_id): version for project_id, job_id, version in found}

    def find_any(self, job_id: JobId) -> JobRow | None:
        """For the dispatcher, which serves all projects."""
        return self._session.get(JobRow, job_id)

    def list_any(self, job_ids: Collection[JobId]) -> list[JobRow]:
        """As they are now, whatever the session has loaded of them before."""
        query = select(JobRow).where(JobRow.id.in_(job_ids)).execution_options(populate_existing=True)
        return list(self._session.scalars(query))

    def list_after(
        self,
        project_id: ProjectId,
        *,
        after: str | None,
        limit: int,
        metadata: dict[str, str],
        without_metadata: bool = False,
    ) -> list[JobRow]:
        """Newest first."""
        query = select(JobRow).where(JobRow.project_id == project_id)
        if after is not None:
            query = query.where(JobRow.id < after)
        for key, value in metadata.items():
            query = query.where(
                JobRow.id.in_(
                    select(JobMetadataRow.job_id).where(JobMetadataRow.key == key, JobMetadataRow.value == value)
                )
            )
        if without_metadata:
            query = query.where(~exists().where(JobMetadataRow.job_id == JobRow.id))
        return list(self._session.scalars(query.order_by(JobRow.id.desc()).limit(limit)))

    def find_unfinished_on_model(self, project_id: ProjectId, model: str) -> JobRow | None:
        """A job that starts from this model and has not ended."""
        query = select(JobRow).where(
            JobRow.project_id == project_id, JobRow.model == model, JobRow.finished_at.is_(None)
        )
        return self._session.scalars(query.limit(1)).first()

    def list_validating(self, owner: DispatcherId) -> list[JobRow]:
        """Those leased by `owner`, oldest first."""
        query = select(JobRow).where(JobRow.status == "validating_files", JobRow.lease_owner == owner)
        return list(self._session.scalars(query.order_by(JobRow.id)))

    def list_with_leftovers(self, *, before: datetime, failed_before: datetime, limit: int) -> list[JobRow]:
        """Of all projects, oldest first, those that ended before then, and whose processes did."""
        may_be_written = exists().where(
            RunRow.job_id == JobRow.id, or_(RunRow.ended_at.is_(None), RunRow.ended_at > before)
        )
        query = select(JobRow).where(
            JobRow.leftovers_since <= before,
            JobRow.finished_at <= case((JobRow.status == "failed", failed_before), else_=before),
            ~may_be_written,
        )
        return list(self._session.scalars(query.order_by(JobRow.leftovers_since).limit(limit)))

    def note_leftovers(self, job_id: JobId, *, now: datetime) -> None:
        """Nothing that a user sees changes, nor does the version."""
        self._session.execute(update(JobRow).where(JobRow.id == job_id).values(leftovers_since=now))

    def move_leftovers(self, job_id: JobId, *, seen: datetime | None, to: datetime | None) -> None:
        """To another moment, or to none, unless more have been noted since."""
        self._session.execute(
            update(JobRow).where(JobRow.id == job_id, JobRow.leftovers_since == seen).values(leftovers_since=to)
        )

    def next_attempt(self, job_id: JobId, *, seen_attempt: int) -> bool:
        """Raise a running job's attempt, which fences its former run off. False: somebody else did."""
        return self.update_running(job_id, attempt=seen_attempt, changes={"attempt": seen_attempt + 1})

    def advance(self, job_id: JobId, *, seen: JobStatus, to: JobStatus, changes: dict[str, Any] | None = None) -> bool:
        """Compare and set the status. False: the job is no longer `seen`. The caller asked `lifecycle.advance`."""
        return self._change(job_id, JobRow.status == seen, changes={"status": to, **(changes or {})}, seen=seen)

    def update_running(self, job_id: JobId, *, attempt: int, changes: dict[str, Any]) -> bool:
        """Change a running job, fenced: False when the job left `running` or this attempt is no longer its own."""
        fence = (JobRow.status == "running", JobRow.attempt == attempt)
        return self._change(job_id, *fence, changes=changes, seen="running")

    def update_unended(self, job_id: JobId, *, attempt: int, changes: dict[str, Any]) -> bool:
        """Change a job that has not ended, running or not, fenced: False when this attempt is no longer its own."""
        return self._change(job_id, JobRow.finished_at.is_(None), JobRow.attempt == attempt, changes=changes)

    def _change(self, job_id: JobId, *conditions: Any, changes: dict[str, Any], seen: JobStatus | None = None) -> bool:
        """`seen` is the status that the conditions ask for, where `changes` may move the job on from it."""
        if "finished_at" in changes:
            changes = changes | {"leftovers_since": changes["finished_at"]}
        project_id = self._session.scalar(
            update(JobRow)
            .where(JobRow.id == job_id, *conditions)
            .values(version=JobRow.version + 1, **changes)
            .returning(JobRow.project_id)
            .execution_options(synchronize_session=False)
        )
        if project_id is not None and seen is not None and "status" in changes:
            tell_on_commit(self._session, JobMoved(job_id, project_id, seen=seen, to=changes["status"]))
        return project_id is not None


# Asked at each poll: to build a statement costs as much as to run it, and the ORM's way as much again.
_JOB = JobRow.__table__.c
_FIND_VERSIONS = select(_JOB.project_id, _JOB.id, _JOB.version).where(_JOB.id.in_(bindparam("job_ids", expanding=True)))
