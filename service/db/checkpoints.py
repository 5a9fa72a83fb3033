"""Checkpoints of jobs: the kept ones, each also a model by name."""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from schemas.ids import JobId
from service.db.tables import CheckpointRow, ModelRow


class CheckpointRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add_once(self, checkpoint: CheckpointRow) -> bool:
        """Add it unless the job has one of that step already. True when added."""
        known = self._session.scalar(
            select(CheckpointRow.id).where(
                CheckpointRow.job_id == checkpoint.job_id, CheckpointRow.step == checkpoint.step
            )
        )
        if known is not None:
            return False
        self._session.add(checkpoint)
        self._session.flush()
        return True

    def list_after(self, job_id: JobId, *, after: str | None, limit: int) -> list[CheckpointRow] | None:
        """Newest first, without those whose model was deleted; None when `after` is no checkpoint of this job."""
        is_there = exists().where(ModelRow.name == CheckpointRow.model_name)
        query = select(CheckpointRow).where(CheckpointRow.job_id == job_id, is_there)
        if after is not None:
            step = self._session.scalar(
                select(CheckpointRow.step).where(CheckpointRow.job_id == job_id, CheckpointRow.id == after)
            )
            if step is None:
                return None
            query = query.where(CheckpointRow.step < step)
        return list(self._session.scalars(query.order_by(CheckpointRow.step.desc()).limit(limit)))
