"""From Pydantic's findings to one error that names the field, its value and the remedy."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import BaseModel, Discriminator, ValidationError
from pydantic.fields import FieldInfo

from service.errors import InvalidRequest
from service.nearest import did_you_mean, nearest, shown

Finding = Mapping[str, Any]
"""Pydantic's `ErrorDetails`; FastAPI hands the same out untyped."""
PYTHON_WORDS = {"dictionary": "object", "tuple": "list", "valid dictionary or instance of": "object:"}

LISTED_VALUES = 50
"""That a message tells of, all of them."""


class UnknownField(InvalidRequest):
    code = "unknown_parameter"


class MissingField(InvalidRequest):
    code = "missing_required_parameter"


def explain_body(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    findings = cast(Sequence[Finding], error.errors(include_url=False))
    first = findings[0]
    path, owner = _resolve(first["loc"], model)
    others = {_resolve(finding["loc"], model)[0] for finding in findings}
    # Each member of a union finds its own fault, at the value or inside it.
    apart = sorted(other for other in others if not f"{path}.".startswith(f"{other}."))
    return _explain(first, path, known=list(owner.model_fields), others=apart)


def explain_query(findings: Sequence[Finding], *, known: list[str]) -> InvalidRequest:
    first = findings[0]
    return _explain(first, ".".join(str(part) for part in first["loc"][1:]), known=known, others=[])


def _explain(finding: Finding, path: str, *, known: list[str], others: list[str]) -> InvalidRequest:
    also = f" (also wrong: {', '.join(others[:5])})" if others else ""
    match finding["type"]:
        case "missing":
            return MissingField(f"{path} is missing; give it{also}", param=path)
        case "extra_forbidden":
            name = path.rpartition(".")[2]
            remedy = did_you_mean(name, known, kind="known names")
            return UnknownField(f"{shown(path)} is not a known name here; {remedy}{also}", param=path)
    return InvalidRequest(f"{path} is {_show_value(finding['input'])}; {_remedy(finding)}{also}", param=path)


def _remedy(finding: Finding) -> str:
    if str(finding["loc"][-1]) == "auto":
        return 'give a number, without quotes, or "auto"'
    if str(finding["loc"][-1]) == "number" and finding["type"].endswith("_type"):
        return f'give {"a whole number" if finding["type"] == "int_type" else "a number"} or "auto"'
    message = re.sub(r"^[A-Z]\w+ should ", "it should ", finding["msg"]).replace(" after validation", "")
    if finding["type"] == "literal_error" and isinstance(finding["input"], str):
        expected = re.findall(r"'([^']*)'", finding["ctx"]["expected"])
        if len(expected) > LISTED_VALUES:
            return did_you_mean(finding["input"], expected, kind="values")
        match = nearest(finding["input"], expected)
        return message if match is None else f'did you mean "{match}"? {message[0].upper()}{message[1:]}'
    if finding["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return "it should be an object"
    for word, json_word in PYTHON_WORDS.items():
        message = message.replace(word, json_word)
    return message


def _show_value(value: object) -> str:
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return shown(value)
        case int() | float() if len(str(value)) <= 40:
            return str(value)
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
    return "out of range"


def _resolve(location: Sequence[int | str], model: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """Return the dotted path without Pydantic's names of union members, and the model that owns its last part."""
    path: list[str] = []
    owner, inner = model, cast(type[BaseModel] | None, model)
    is_tag = is_mapping = False
    for part in location:
        if is_tag:
            is_tag = False
        elif inner is not None:
            owner = inner
            path.append(str(part))
            field = owner.model_fields.get(str(part))
            inner = None if field is None else _inner_model(field)
            is_mapping = field is not None and "dict" in str(field.annotation)
            is_tag = field is not None and any(isinstance(each, Discriminator) for each in field.metadata)
        elif isinstance(part, int) or (is_mapping and part != "[key]"):
            path.append(str(part))
    return ".".join(path), owner


def _inner_model(field: FieldInfo) -> type[BaseModel] | None:
    candidates = (field.annotation, *get_args(field.annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)
