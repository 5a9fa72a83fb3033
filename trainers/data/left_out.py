"""What a chat template leaves out: a prompt's end where an answer follows, its tools and their use, parts of answers.

Looked for in the texts, since tokens that merge at the boundary lose nothing. Templates may move whitespace.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from schemas.preference_rows import Message, PreferencePair, ToolCall

Side = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Of one answer."""

    text: str
    """Its words, and names of called functions."""
    is_all: bool
    """Nothing of the answer's own is left."""


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Count the first items that are the same in both."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def lost_end(prompt: str, wholes: Sequence[str]) -> str:
    """Return what stands at the prompt's end alone, and in none or not in all of the texts with an answer."""
    return prompt[min(_shared_length(prompt, whole) for whole in wholes) :]


def left_out(answer: Sequence[Message], *, prompt: str, whole: str, eos: str) -> LeftOut | None:
    """Look for the words and calls of an answer in the text of prompt and answer; None where all are there.

    Arguments of calls are not looked for: templates write them in formats of their own.
    """
    shared_length = _shared_length(prompt, whole)
    written = whole[shared_length:]
    if all(_is_written_as_it_is(message, written) for message in answer):
        return None
    said = (answer[0].content or "").strip()
    # A prompt's end (`<think>`) may be what the answer begins with; the answer's end of sequence is not its own.
    written = _overlap(whole[:shared_length], said) + written.rstrip().removesuffix(eos)
    parts = [part for message in answer for part in _parts(message)]
    missing = [part for part in parts if not _is_written(part, written)]
    return LeftOut(" ".join(missing), is_all=len(missing) == len(parts)) if missing else None


def mark_tool_use(pair: PreferencePair) -> tuple[PreferencePair, dict[str, str]]:
    """Put a mark into each tool, call and tool's answer of the prompt; returns the marks with what they stand for.

    The words alone would not tell: a call's name stands among the tools as well, or in what a user says.
    """
    marks: dict[str, str] = {}

    def mark(text: str) -> str:
        marks[f"~tool-{len(marks)}~"] = text
        return text + next(reversed(marks))

    tools = tuple(_mark_tool(tool, mark) for tool in pair.tools or ())
    prompt = tuple(_mark_message(message, mark) for message in messages_of(pair.prompt))
    return replace(pair, prompt=prompt, tools=tools or None), marks


def messages_of(side: Side) -> list[Message]:
    """Return no messages, where the side is a text."""
    return [message for message in side if not isinstance(message, str)]


def _mark_tool(tool: dict[str, Any], mark: Callable[[str], str]) -> dict[str, Any]:
    function = tool["function"]
    return {**tool, "function": {**function, "name": mark(function["name"])}}


def _mark_message(message: Message, mark: Callable[[str], str]) -> Message:
    if message.role == "tool":
        return message.model_copy(update={"content": mark(message.content or "")})
    if not message.tool_calls:
        return message
    return message.model_copy(update={"tool_calls": tuple(_mark_call(call, mark) for call in message.tool_calls)})


def _mark_call(call: ToolCall, mark: Callable[[str], str]) -> ToolCall:
    function = call.function.model_copy(update={"name": mark(call.function.name)})
    return call.model_copy(update={"function": function})


def _shared_length(prompt: str, whole: str) -> int:
    return len(prompt) if whole.startswith(prompt) else common_length(prompt, whole)


def _is_written_as_it_is(message: Message, written: str) -> bool:
    """Cheap, and true of nearly every answer."""
    return (message.content or "").strip() in written and all(name in written for name in _called(message))


def _called(message: Message) -> Iterator[str]:
    return (call.function.name for call in message.tool_calls or ())


def _parts(message: Message) -> Iterator[str]:
    yield from (message.content or "").split()
    yield from _called(message)


def _is_written(part: str, written: str) -> bool:
    """As text, or within a JSON string, as some templates write a tool's answer."""
    return part in written or json.dumps(part, ensure_ascii=False)[1:-1] in written


def _overlap(text: str, said: str) -> str:
    """Return the longest end of the text that the answer begins with."""
    lengths = range(min(len(text), len(said)), 0, -1)
    return next((said[:length] for length in lengths if text.endswith(said[:length])), "")
