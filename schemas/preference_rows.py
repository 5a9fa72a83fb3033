"""Preference rows: four formats on the wire, one `PreferencePair` inside.

Both sides read rows here, so that what the service accepts is what the trainer trains on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.chat_messages import FunctionCall, Message, ToolCall
from schemas.conversation_rules import Conversation, Side, check_output, check_prompt, with_system_role
from schemas.empty_fields import drop_empty_fields
from schemas.hh_transcripts import split_transcripts
from schemas.preference_formats import (
    HhRlhfRow,
    OpenAiCompletionRow,
    OpenAiRow,
    Row,
    RowFormat,
    Tools,
    TrlExplicitRow,
    TrlImplicitRow,
    TrlTextRow,
    check_prompt_said_once,
    check_sides_alike,
    detect_format,
    uses_older_names,
)
from schemas.row_errors import RowError, row_error_from
from schemas.row_json import JsonObject, read_object
from schemas.text_parts import join_text_parts

__all__ = ["FunctionCall", "Message", "PreferencePair", "RowError", "RowFormat", "ToolCall", "parse_row"]

AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One comparison. Conversational when the sides are messages, plain text when they are strings."""

    prompt: str | tuple[Message, ...]
    chosen: str | tuple[Message, ...]
    rejected: str | tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None
    weight: float
    row_id: str | None

    @property
    def is_conversational(self) -> bool:
        return not isinstance(self.prompt, str)


def parse_row(line: bytes, *, row_format: RowFormat | None) -> tuple[RowFormat, PreferencePair]:
    """Parse one JSONL line; `row_format` None detects it, otherwise another format is an error.

    Raises: RowError.
    """
    row = read_object(line)
    found = detect_format(row)
    if row_format is not None and found != row_format:
        raise RowError(None, f"is in the format {found} while the file's is {row_format}; use one format a file")
    return found, READERS[found](row)


def _read_openai(row: JsonObject) -> PreferencePair:
    if uses_older_names(row):
        older = _validate(OpenAiCompletionRow, row)
        chosen = Side("preferred_completion", older.preferred_completion)
        rejected = Side("non_preferred_completion", older.non_preferred_completion)
        return _conversation(older, "input.messages", older.input.messages, chosen, rejected, older.input.tools)
    wire = _validate(OpenAiRow, row)
    chosen = Side("preferred_output", wire.preferred_output)
    rejected = Side("non_preferred_output", wire.non_preferred_output)
    return _conversation(wire, "input.messages", wire.input.messages, chosen, rejected, wire.input.tools)


def _read_trl_explicit(row: JsonObject) -> PreferencePair:
    check_prompt_said_once(row)
    check_sides_alike(row, "prompt", "chosen", "rejected")
    if isinstance(row["prompt"], str):
        return _read_trl_text(row)
    wire = _validate(TrlExplicitRow, row)
    chosen, rejected = Side("chosen", wire.chosen), Side("rejected", wire.rejected)
    return _conversation(wire, "prompt", wire.prompt, chosen, rejected, wire.tools)


def _read_trl_text(row: JsonObject) -> PreferencePair:
    wire = _validate(TrlTextRow, row)
    for name in ("prompt", "chosen", "rejected"):
        if not getattr(wire, name).strip():
            raise RowError(name, "is empty; give text, or remove the pair")
    return _pair(wire, wire.prompt, wire.chosen, wire.rejected, None)


def _read_trl_implicit(row: JsonObject) -> PreferencePair:
    check_sides_alike(row, "chosen", "rejected")
    wire = _validate(TrlImplicitRow, row)
    length = _prompt_length(wire.chosen, wire.rejected)
    if length == 0:
        raise RowError("rejected", 'shares no first user message with "chosen"; start both sides with the same prompt')
    chosen = Side("chosen", wire.chosen[length:], offset=length)
    rejected = Side("rejected", wire.rejected[length:], offset=length)
    return _conversation(wire, "chosen", wire.chosen[:length], chosen, rejected, wire.tools)


def _read_hh_rlhf(row: JsonObject) -> PreferencePair:
    check_sides_alike(row, "chosen", "rejected")
    wire = _validate(HhRlhfRow, row)
    pair = split_transcripts(wire.chosen, wire.rejected)
    return _pair(wire, pair.prompt, pair.chosen, pair.rejected, None)


def _conversation(
    row: Row, prompt_field: str, prompt: Conversation, chosen: Side, rejected: Side, tools: Tools | None
) -> PreferencePair:
    calls = check_prompt(prompt, field=prompt_field)
    check_output(chosen, calls)
    check_output(rejected, calls)
    definitions = None if tools is None else tuple(tool.model_dump(exclude_unset=True) for tool in tools)
    return _pair(row, with_system_role(prompt), chosen.messages, rejected.messages, definitions)


def _pair(
    row: Row,
    prompt: str | Conversation,
    chosen: str | Conversation,
    rejected: str | Conversation,
    tools: tuple[dict[str, Any], ...] | None,
) -> PreferencePair:
    row_id = None if row.id is None else str(row.id)
    return PreferencePair(prompt, chosen, rejected, tools=tools, weight=row.weight, row_id=row_id)


def _prompt_length(chosen: Conversation, rejected: Conversation) -> int:
    """Messages up to the last user or tool message that both sides begin with."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    return max((number for number, (message, _) in enumerate(shared, 1) if message.role in ("user", "tool")), default=0)


def _validate(model: type[AnyRow], row: JsonObject) -> AnyRow:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        if any([join_text_parts(row, refused_for=error), drop_empty_fields(row, refused_for=error)]):
            return _validate(model, row)
        raise row_error_from(error, model=model, row=row) from error


READERS: dict[RowFormat, Callable[[JsonObject], PreferencePair]] = {
    "openai": _read_openai,
    "trl_explicit": _read_trl_explicit,
    "trl_implicit": _read_trl_implicit,
    "hh_rlhf": _read_hh_rlhf,
}
