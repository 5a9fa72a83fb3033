"""The GPUs that a job asks for, by itself or through its model."""

from schemas.fine_tuning import CreateJobRequest
from service.registry import BaseModelEntry


def resolve_gpus(request: CreateJobRequest, entry: BaseModelEntry) -> int:
    asked = request.resources.gpus
    return entry.gpus if asked is None else asked
