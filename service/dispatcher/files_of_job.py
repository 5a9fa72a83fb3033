"""The files a job names, as rows: found, or the failure that says which one is gone."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from service.db.files import FileRepository
from service.db.tables import FileRow, JobRow
from service.dispatcher.context import JobFailure


@dataclass(frozen=True, slots=True)
class JobFiles:
    training: FileRow
    validation: FileRow | None


class FileGone(Exception):
    """A file of the job was deleted or has expired."""

    def __init__(self, file_id: str, *, param: str) -> None:
        super().__init__(file_id, param)
        self.failure = JobFailure(
            "file_not_found",
            f"The {param.replace('_', ' ')} {file_id} no longer exists: it was deleted or has expired; "
            "upload it again and create a new job.",
            param,
        )


def find_files(session: Session, job: JobRow, *, now: datetime) -> JobFiles:
    """Raises: FileGone."""
    training = _find(session, job, job.training_file_id, param="training_file", now=now)
    if job.validation_file_id is None:
        return JobFiles(training, None)
    return JobFiles(training, _find(session, job, job.validation_file_id, param="validation_file", now=now))


def _find(session: Session, job: JobRow, file_id: str, *, param: str, now: datetime) -> FileRow:
    row = FileRepository(session).find(ProjectId(job.project_id), file_id, now=now)
    if row is None:
        raise FileGone(file_id, param=param)
    return row
