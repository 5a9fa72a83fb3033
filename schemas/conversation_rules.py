"""Which message may follow which: the rules that types cannot say, for a prompt and for the two outputs."""

from dataclasses import dataclass

import jiter

from schemas.chat_messages import Message, ToolCall
from schemas.row_errors import RowError, shown

Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One output, and where in the row it stands: `offset` messages into `field`."""

    field: str
    messages: Conversation
    offset: int = 0

    def at(self, index: int) -> str:
        return f"{self.field}.{self.offset + index}"


def check_prompt(messages: Conversation, *, field: str) -> frozenset[str]:
    """Check the messages before the outputs; returns the ids of the tool calls made there. Raises: RowError."""
    if not messages:
        raise RowError(field, "is empty; give at least one user message")
    calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role in ("system", "developer") and index > 0:
            reason = f'is "{message.role}" after other messages; put it first, and only once'
            raise RowError(f"{field}.{index}.role", reason)
        _check_message(message, calls, at=f"{field}.{index}")
    last = messages[-1].role
    if last not in ("user", "tool"):
        reason = f'is "{last}"; the prompt must end with a user or tool message'
        raise RowError(f"{field}.{len(messages) - 1}.role", reason)
    return frozenset(calls)


def check_output(side: Side, earlier_calls: frozenset[str]) -> None:
    """Check one side. Raises: RowError."""
    messages = side.messages
    if not messages:
        raise RowError(side.field, "is empty; give one assistant message")
    for index, end in ((0, "start"), (len(messages) - 1, "end")):
        if messages[index].role != "assistant":
            reason = f'is "{messages[index].role}"; an output must {end} with an assistant message'
            raise RowError(f"{side.at(index)}.role", reason)
    calls = set(earlier_calls)
    for index, message in enumerate(messages):
        if message.role in ("system", "developer"):
            raise RowError(f"{side.at(index)}.role", f'is "{message.role}" in an output; put it first in the prompt')
        _check_message(message, calls, at=side.at(index))
        if message.role == "assistant" and not message.tool_calls and not (message.content or "").strip():
            raise RowError(f"{side.at(index)}.content", "is empty; give the assistant's answer, or remove the pair")


def with_system_role(messages: Conversation) -> Conversation:
    """Rename `developer` to `system`: OpenAI means the same by both, and chat templates know the latter."""
    if messages and messages[0].role == "developer":
        return (messages[0].model_copy(update={"role": "system"}), *messages[1:])
    return messages


def _check_message(message: Message, calls: set[str], *, at: str) -> None:
    if message.role == "assistant":
        _check_assistant(message, at=at)
        calls.update(call.id for call in message.tool_calls or ())
    elif message.tool_calls is not None:
        raise RowError(f"{at}.tool_calls", f"is on a {message.role} message; only assistant messages call tools")
    elif message.content is None:
        raise RowError(f"{at}.content", "is missing or null; give text")
    if message.role == "tool":
        _check_tool_answer(message, calls, at=at)
    elif message.tool_call_id is not None:
        raise RowError(f"{at}.tool_call_id", f"is on a {message.role} message; only tool messages answer a call")


def _check_assistant(message: Message, *, at: str) -> None:
    if message.content is None and not message.tool_calls:
        raise RowError(f"{at}.content", 'is missing or null; give text or "tool_calls"')
    for number, call in enumerate(message.tool_calls or ()):
        _check_arguments(call, field=f"{at}.tool_calls.{number}.function.arguments")


def _check_arguments(call: ToolCall, *, field: str) -> None:
    try:
        arguments = jiter.from_json(call.function.arguments.encode(), allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise RowError(field, f'is not JSON ({error}); give an object as text, such as "{{}}"') from error
    if not isinstance(arguments, dict):
        raise RowError(field, 'is JSON but no object; give an object as text, such as "{}"')


def _check_tool_answer(message: Message, calls: set[str], *, at: str) -> None:
    if message.tool_call_id is None:
        raise RowError(f"{at}.tool_call_id", "is missing; name the assistant's tool call that this message answers")
    if message.tool_call_id not in calls:
        called = f'"{shown(message.tool_call_id)}"'
        raise RowError(f"{at}.tool_call_id", f"is {called}, which no assistant message before it calls")
