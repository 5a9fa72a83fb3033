"""The GPUs that a job asks for, by itself or through its model."""

from schemas.fine_tuning import ResourceOptions
from service.registry import BaseModelEntry


def resolve_gpus(asked: ResourceOptions, entry: BaseModelEntry) -> int:
    return entry.gpus if asked.gpus is None else asked.gpus
