"""Preference rows: four formats on the wire, one `PreferencePair` inside.

Both sides read rows here, so that what the service accepts is what the trainer trains on.
"""

from dataclasses import dataclass
from typing import Any, Literal

from schemas.base import Request

RowFormat = Literal["openai", "trl_explicit", "trl_implicit", "hh_rlhf"]


class Message(Request):
    """A chat message as OpenAI writes it; `content` is text, text parts, or null beside `tool_calls`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: tuple[Any, ...] | None = None
    tool_call_id: str | None = None
    name: str | None = None


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


class RowError(ValueError):
    """A row that cannot be read: `field` is the dotted path, `reason` says what is wrong and what to do."""

    def __init__(self, field: str | None, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


def parse_row(line: bytes, *, row_format: RowFormat | None) -> tuple[RowFormat, PreferencePair]:
    """Parse one JSONL line; `row_format` None detects it, otherwise another format is an error.

    Raises: RowError.
    """
    raise NotImplementedError
