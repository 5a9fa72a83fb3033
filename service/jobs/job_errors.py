"""What can be wrong with asking for a job.

InvalidRequest 400: ModelNotFound, FileNotUsable, InvalidJob
NotFound 404: JobNotFound
Conflict 409: JobAlreadyEnded, JobAlreadyPaused, JobNotPaused
TooManyRequests 429: QuotaExceeded
"""

from service.errors import Conflict, InvalidRequest, NotFound, TooManyRequests


class ModelNotFound(InvalidRequest):
    """The job's model is neither in the registry nor an `ft:` model of the project."""

    code = "model_not_found"


class FileNotUsable(InvalidRequest):
    """A file of the job does not exist in the project, or is not one to train on."""

    code = "invalid_file"


class InvalidJob(InvalidRequest):
    """Two values that each are fine and exclude each other, or one that this model cannot take."""


class JobNotFound(NotFound):
    code = "job_not_found"


class JobAlreadyEnded(Conflict):
    code = "job_already_ended"


class JobAlreadyPaused(Conflict):
    code = "job_already_paused"


class JobNotPaused(Conflict):
    code = "job_not_paused"


class QuotaExceeded(TooManyRequests):
    """The project has as much of something as it may: waiting jobs, GPUs, GPU-hours."""

    code = "quota_exceeded"
