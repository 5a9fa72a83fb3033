"""The files a job names, as rows: found, or the failure that says which one is gone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from schemas.missing_files import missing_file_message
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
        self.failure = JobFailure("file_not_found", missing_file_message(param, file_id), param)


def find_files(session: Session, jobs: Iterable[JobRow], *, now: datetime) -> dict[str, FileRow]:
    """Return those that are still there of all files that the jobs name, by their ids."""
    named = {file_id for job in jobs for file_id in (job.training_file_id, job.validation_file_id) if file_id}
    return {file.id: file for file in FileRepository(session).list_any(named, now=now)}


def files_of(job: JobRow, found: Mapping[str, FileRow]) -> JobFiles:
    """Raises: FileGone."""
    training = _file_of(job, job.training_file_id, found, param="training_file")
    if job.validation_file_id is None:
        return JobFiles(training, None)
    return JobFiles(training, _file_of(job, job.validation_file_id, found, param="validation_file"))


def _file_of(job: JobRow, file_id: str, found: Mapping[str, FileRow], *, param: str) -> FileRow:
    row = found.get(file_id)
    if row is None or row.project_id != job.project_id:
        raise FileGone(file_id, param=param)
    return row
