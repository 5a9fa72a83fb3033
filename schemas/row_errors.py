"""What is wrong with a preference row, said so that a person can mend it.

A reason is a predicate: it is read after the field's name (`"chosen" is missing; add it`) or after "the row".
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from schemas.unknown_fields import place_of

SHOWN_CHARACTERS = 60
INPUT_SHOULD = re.compile("^(Input|String) should")
TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    tuple: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
UNREAD_FIELDS = {
    "weight": 'is not read on messages: every token of both sides counts; remove it, or give the row a "weight"',
    "function_call": 'was retired by OpenAI; use "tool_calls"',
}
ROLE_REMEDIES = {
    "function": 'is "function", which OpenAI retired; use the role "tool" with a "tool_call_id"',
    "human": 'is "human"; use the role "user"',
    "gpt": 'is "gpt"; use the role "assistant"',
    "bot": 'is "bot"; use the role "assistant"',
}
REMEDIES = {
    "string_type": "give text",
    "tuple_type": "give a list",
    "list_type": "give a list",
    "dict_type": "give an object",
    "model_type": "give an object",
    "model_attributes_type": "give an object",
    "bool_type": "give true or false",
    "float_type": "give a number",
    "int_type": "give a whole number",
}


UNION_OF_LABELS = ("str", "int")
"""What pydantic adds to the path of `str | int`, the type of labels."""


class RowError(ValueError):
    """A row that cannot be read: `field` is the dotted path, `reason` says what is wrong and what to do."""

    def __init__(self, field: str | None, reason: str) -> None:
        super().__init__(f'"{field}" {reason}' if field else f"the row {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type["RowError"], tuple[str | None, str]]:
        return RowError, (self.field, self.reason)


def row_error_from(error: ValidationError, *, model: type[BaseModel], row: Mapping[str, object]) -> RowError:
    """Turn pydantic's findings into the one that helps most: a misspelled field explains a missing one."""
    findings = [
        _Finding(
            found["type"], found["loc"], found["input"], found["msg"], _hint(found["type"], found["loc"], model, row)
        )
        for found in error.errors(include_url=False)
    ]
    worst = next((finding for finding in findings if finding.hint), findings[0])
    is_label = worst.name in UNION_OF_LABELS
    reason = f"is {describe_type(worst.value)}; give text or a whole number" if is_label else _reason(worst)
    return RowError(dotted_path(worst.location[:-1] if is_label else worst.location) or None, reason)


def dotted_path(location: Sequence[int | str]) -> str:
    return shown(".".join(str(part) for part in location), limit=200)


def describe_type(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)


def shown(text: str, *, limit: int = SHOWN_CHARACTERS) -> str:
    """Shorten a user's text for a message, and keep control characters out of it."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return printable if len(printable) <= limit else printable[:limit] + "…"


@dataclass(frozen=True, slots=True)
class _Finding:
    """One of pydantic's errors."""

    kind: str
    location: tuple[int | str, ...]
    value: object
    message: str
    hint: str | None
    """What an unknown field was meant to be."""

    @property
    def name(self) -> str:
        return str(self.location[-1]) if self.location else ""


def _hint(kind: str, location: tuple[int | str, ...], model: type[BaseModel], row: Mapping[str, object]) -> str | None:
    if kind != "extra_forbidden":
        return None
    *path, name = location
    return place_of(model, row, path).hint(str(name))


def _reason(finding: _Finding) -> str:
    match finding.kind:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return UNREAD_FIELDS.get(finding.name) or f"is not a known field; {finding.hint or 'remove it'}"
        case "literal_error" if finding.name == "role" and finding.value in list(ROLE_REMEDIES):
            return ROLE_REMEDIES[str(finding.value)]
        case "literal_error":
            return f"is {_shown_value(finding.value)}; {finding.message.replace('Input should be', 'give')}"
        case "float_type" if describe_type(finding.value) == "a number":
            return "is a huge number; give a smaller one"
        case kind if kind in REMEDIES:
            return f"is {describe_type(finding.value)}; {REMEDIES[kind]}"
        case _:
            return f"is {_shown_value(finding.value)}; {INPUT_SHOULD.sub('it must', finding.message)}"


def _shown_value(value: object) -> str:
    if isinstance(value, (dict, list)):
        return describe_type(value)
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge number"  # Python refuses to print integers of more than 4,300 digits
    return shown(json.dumps(value, ensure_ascii=False, default=str))
