"""Chat messages as OpenAI writes them, with text parts joined.

`content` is always one text or null: chat templates want it so, and no other part type can be trained on.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from schemas.base import Request
from schemas.row_errors import describe_type, shown

Role = Literal["system", "developer", "user", "assistant", "tool"]


def _join_text_parts(value: object) -> object:
    """Join `[{"type": "text", "text": …}, …]`; anything but a list is pydantic's to judge."""
    if not isinstance(value, list):
        return value
    if not value:
        raise _finding("", "is an empty list; give text or at least one text part")
    return "".join(_text_of_part(part, number) for number, part in enumerate(value))


def _text_of_part(part: object, number: int) -> str:
    if not isinstance(part, dict):
        raise _finding(str(number), f'is {describe_type(part)}; give a part like {{"type": "text", "text": "…"}}')
    kind = part.get("type")
    if kind != "text":
        named = f'"{shown(kind)}"' if isinstance(kind, str) else "missing or not text"
        raise _finding(f"{number}.type", f'is {named}; preference rows train on "text" parts alone')
    if not isinstance(part.get("text"), str):
        raise _finding(f"{number}.text", "is missing or not text; give text")
    for name in part:
        if name not in ("type", "text"):
            raise _finding(f"{number}.{shown(name)}", 'is not a known field of a text part; keep "type" and "text"')
    return part["text"]  # type: ignore[no-any-return]  # checked above


def _finding(path: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError("row", "{reason}", {"path": path, "reason": reason})


class FunctionCall(Request):
    name: Annotated[str, Field(min_length=1)]
    arguments: str
    """A JSON object, as text."""


class ToolCall(Request):
    id: Annotated[str, Field(min_length=1)]
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Request):
    """A chat message as OpenAI writes it; `content` is text, text parts (joined), or null beside `tool_calls`."""

    role: Role
    content: Annotated[str | None, BeforeValidator(_join_text_parts)] = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(strict=False, min_length=1)] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class FunctionDefinition(Request):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON Schema."""
    strict: bool | None = None


class ToolDefinition(Request):
    type: Literal["function"]
    function: FunctionDefinition
