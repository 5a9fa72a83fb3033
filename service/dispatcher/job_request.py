"""What a job asks for, off its row. Another version of the service may have written it."""

from typing import TypeVar

import structlog
from pydantic import ValidationError

from schemas.base import Request
from schemas.fine_tuning import CreateJobRequest, DpoOptions
from service.db.tables import JobRow
from service.dispatcher.context import JobFailure

log = structlog.get_logger()

_Asked = TypeVar("_Asked", bound=Request)


class UnreadableRequest(Exception):
    """The row asks for what this version does not know; without it another model would be trained than was asked."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.failure = JobFailure(
            "internal_error",
            "This version of the service cannot read what the job asks for: another one has taken it. It is not your "
            "data: create the job again, or give the operator this job's id, by which the service's log has the cause.",
        )


def read_request(job: JobRow) -> CreateJobRequest:
    """Raises: UnreadableRequest, with the cause in the log alone."""
    return _read(CreateJobRequest, job.request, job)


def read_method(job: JobRow) -> DpoOptions:
    """As the job shows it, once its files are validated. Raises: UnreadableRequest, with the cause in the log alone."""
    return _read(DpoOptions, job.resolved_method, job)


def _read(model: type[_Asked], asked: object, job: JobRow) -> _Asked:
    try:
        return model.model_validate(asked)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        log.error("job_request_unreadable", job_id=job.id, found=found)
        raise UnreadableRequest(job.id) from error
