"""Chat messages and tools as OpenAI writes them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Request

Role = Literal["system", "developer", "user", "assistant", "tool"]


class FunctionCall(Request):
    name: Annotated[str, Field(min_length=1)]
    arguments: str
    """A JSON object, as text."""


class ToolCall(Request):
    id: Annotated[str, Field(min_length=1)]
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Request):
    """`content` is text, or null beside `tool_calls`; chat templates want it so (text parts are joined before)."""

    role: Role
    content: str | None = None
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
