"""The rows on the wire, one model a format, and how the format of a row is told from its fields."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Request
from schemas.chat_messages import Message, ToolDefinition
from schemas.row_errors import RowError, describe_type, shown
from schemas.unknown_fields import nearest

RowFormat = Literal["openai", "trl_explicit", "trl_implicit", "hh_rlhf"]

OLDER_NAMES = {
    "preferred_completion": "preferred_output",
    "non_preferred_completion": "non_preferred_output",
}
OPENAI_FIELDS = frozenset({"input", *OLDER_NAMES, *OLDER_NAMES.values()})
TRL_FIELDS = frozenset({"prompt", "chosen", "rejected"})
SIDE_KINDS: dict[type, str] = {str: "text", list: "messages"}
FORMATS = (
    'give "input", "preferred_output" and "non_preferred_output", or "prompt", "chosen" and "rejected", '
    'or "chosen" and "rejected" alone'
)

Messages = Annotated[tuple[Message, ...], Field(strict=False)]
Tools = Annotated[tuple[ToolDefinition, ...], Field(strict=False)]


class Row(Request):
    """What a row of any format may carry."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    annotator: str | int | None = None
    id: str | int | None = None
    metadata: dict[str, Any] | None = None


class OpenAiInput(Request):
    messages: Messages
    tools: Tools | None = None
    parallel_tool_calls: bool | None = None


class OpenAiRow(Row):
    input: OpenAiInput
    preferred_output: Messages
    non_preferred_output: Messages


class OpenAiCompletionRow(Row):
    """The same under the names of OpenAI's older documents."""

    input: OpenAiInput
    preferred_completion: Messages
    non_preferred_completion: Messages


class TrlExplicitRow(Row):
    prompt: Messages
    chosen: Messages
    rejected: Messages
    tools: Tools | None = None


class TrlTextRow(Row):
    prompt: str
    chosen: str
    rejected: str


class TrlImplicitRow(Row):
    chosen: Messages
    rejected: Messages
    tools: Tools | None = None


class HhRlhfRow(Row):
    chosen: str
    rejected: str


def detect_format(row: Mapping[str, object]) -> RowFormat:
    """Raises: RowError when the fields are those of no format."""
    if not OPENAI_FIELDS.isdisjoint(row):
        return "openai"
    if "prompt" in row:
        return "trl_explicit"
    if "chosen" in row or "rejected" in row:
        return "trl_implicit" if isinstance(row.get("chosen", row.get("rejected")), list) else "hh_rlhf"
    raise _unknown_format(row)


def uses_older_names(row: Mapping[str, object]) -> bool:
    """Whether an OpenAI row says `…_completion` for `…_output`. Raises: RowError when it says both."""
    older = next((name for name in row if name in OLDER_NAMES), None)
    if older is None:
        return False
    newer = next((name for name in row if name in OLDER_NAMES.values()), None)
    if newer:
        raise RowError(older, f'is an older name and stands beside "{newer}"; use "{OLDER_NAMES[older]}"')
    return True


def check_sides_alike(row: Mapping[str, object], *names: str) -> None:
    """Refuse a row that mixes text and messages. Missing and other values are the models' to judge."""
    first = None
    for name in names:
        kind = SIDE_KINDS.get(type(row.get(name)))
        if kind is None:
            continue
        first = first or name
        first_kind = SIDE_KINDS[type(row[first])]
        if kind != first_kind:
            raise RowError(name, f'is {kind} while "{first}" is {first_kind}; give all as text or all as messages')


def check_prompt_said_once(row: Mapping[str, object]) -> None:
    """Refuse a prompt beside sides that begin with it: ultrafeedback_binarized has it as text, too."""
    prompt, sides = row["prompt"], (row.get("chosen"), row.get("rejected"))
    if all(_holds_prompt(side, prompt) for side in sides):
        raise RowError("prompt", 'stands beside sides that begin with the prompt already; remove "prompt"')


def _holds_prompt(side: object, prompt: object) -> bool:
    match side, prompt:
        case [{"role": "system" | "developer" | "user"}, _, *_], str():
            return True
        case [{"role": "system" | "developer" | "user"}, _, *_], [_, *_]:
            return side[: len(prompt)] == prompt
        case _:
            return False


def _unknown_format(row: Mapping[str, object]) -> RowError:
    for name in row:
        meant = nearest(name, OPENAI_FIELDS | TRL_FIELDS)
        if meant:
            return RowError(shown(name), f'is not a known field; did you mean "{meant}"?')
    if not row:
        return RowError(None, f"has no fields; {FORMATS}")
    fields = ", ".join(f'"{shown(name, limit=30)}" ({describe_type(value)})' for name, value in list(row.items())[:4])
    return RowError(None, f"has the fields {fields}, which is none of the formats; {FORMATS}")
