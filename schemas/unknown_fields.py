"""A field that its object does not know: the one that it was meant to be, or the object that it belongs into.

Judged by the model of that very object, and by what the object holds already: a name that is taken was not meant.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from pydantic import BaseModel

NEAR = 0.65
"""Similarity at which a name is a misspelling: "promt" is, "content" for "chosen" is not."""


@dataclass(frozen=True, slots=True)
class Place:
    """An object of a row, and its model."""

    model: type[BaseModel]
    given: Mapping[str, object]

    def hint(self, name: str) -> str | None:
        """What to do about a field of that name, other than to remove it."""
        for holder, inner in _objects_within(self.model):
            held = self.given.get(holder, {})
            if name in inner.model_fields and isinstance(held, dict) and name not in held:
                moved = ", ".join(f'"{each}"' for each in self.given if each in inner.model_fields and each not in held)
                return f'put {moved} into "{holder}"'
        meant = nearest(name, [each for each in self.model.model_fields if each not in self.given])
        return f'did you mean "{meant}"?' if meant else None


def place_of(model: type[BaseModel], row: Mapping[str, object], path: Sequence[int | str]) -> Place:
    """The object at the path of a finding of pydantic's, which leads through models and lists of them."""
    value: object = row
    for step in path:
        match value, step:
            case dict(), str():
                model = _model_within(model.model_fields[step].annotation) or model
                value = value[step]
            case list(), int():
                value = value[step]
    return Place(model, cast("dict[str, object]", value))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    return next(iter(difflib.get_close_matches(name[:100], known, n=1, cutoff=NEAR)), None)


def _model_within(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _objects_within(model: type[BaseModel]) -> Iterable[tuple[str, type[BaseModel]]]:
    """The fields that hold one object each, and no list of them."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation
