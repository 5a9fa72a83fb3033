"""LoRA options of a job that goes on from an `ft:` model: an adapter keeps the shape that it was made with.

What was made is told by the job that made it, which shows what it trained: no object of the store is read.
"""

import json

from schemas.fine_tuning import LoraOptions
from service.jobs.job_errors import InvalidJob
from service.nearest import SHOWN_CHARACTERS, shown

SHAPE = ("r", "alpha", "target_modules", "use_rslora", "use_dora")


def resolve_continued_lora(asked: LoraOptions, made: LoraOptions, *, model: str) -> LoraOptions:
    """The adapter's shape, and the job's own dropout. Raises: InvalidJob, for another shape that was asked for."""
    for name in SHAPE:
        wanted, had = getattr(asked, name), getattr(made, name)
        if name in asked.model_fields_set and not _is_same(wanted, had):
            raise InvalidJob(
                f"lora.{name} is {_told(wanted)} and {shown(model)} was made with {_told(had)}, which its "
                f"adapter keeps; leave {name} out, or start from a base model",
                param=f"method.dpo.lora.{name}",
            )
    return made.model_copy(update={"dropout": asked.dropout})


def _is_same(wanted: object, had: object) -> bool:
    """Names of modules have no order."""
    if isinstance(wanted, tuple) and isinstance(had, tuple):
        return set(wanted) == set(had)
    return wanted == had


def _told(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
