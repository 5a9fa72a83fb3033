"""A pair as three texts: its prompt, the prompt with the chosen and with the rejected side.

Rows are OpenAI's wire format, in which a tool call's arguments are JSON text. TRL hands its rows' arguments to the
template as they are, and there they are objects: what templates expect, and what servers make of the wire's text.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from schemas.preference_rows import PreferencePair
from trainers.data.left_out import Side, mark_tool_use, messages_of
from trainers.data.refused_rows import RowRefused
from trainers.errors import UnusableModel

UNEXPECTED = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
"""A template is a program of the model's makers; these are what such programs raise on messages they do not expect."""
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""How chat templates ask for the date."""


def pair_texts(pair: PreferencePair, tokenizer: PreTrainedTokenizerBase, today: datetime | None) -> list[str]:
    """Raises: UnusableModel, when messages find no chat template; RowRefused, when it cannot render them."""
    if not pair.is_conversational:
        return _joined(pair, str(tokenizer.eos_token))
    if not tokenizer.chat_template:
        raise UnusableModel("the model's tokenizer has no chat template; train it on rows of plain text")
    return _render(pair, (pair.chosen, pair.rejected), tokenizer, today)


def prompt_left_out(pair: PreferencePair, tokenizer: PreTrainedTokenizerBase, today: datetime | None) -> str:
    """Return what the template leaves out of a prompt's tools, tool calls and tool answers.

    Renders the prompt once more, where it has any, with marks in them.
    """
    marked, marks = mark_tool_use(pair)
    if not marks:
        return ""
    try:
        [text] = _render(marked, (), tokenizer, today)
    except RowRefused:  # for the marks, since it rendered the row without them: so it does read what they are in
        return ""
    return " ".join(dict.fromkeys(said for mark, said in marks.items() if mark not in text))


def _joined(pair: PreferencePair, end: str) -> list[str]:
    """The texts of a pair without messages; completions end with EOS."""
    prompt, chosen, rejected = str(pair.prompt), str(pair.chosen), str(pair.rejected)
    return [prompt, prompt + chosen.removesuffix(end) + end, prompt + rejected.removesuffix(end) + end]


def _render(
    pair: PreferencePair, sides: Sequence[Side], tokenizer: PreTrainedTokenizerBase, today: datetime | None
) -> list[str]:
    try:
        return _apply_template(pair, sides, tokenizer, today, with_objects=True)
    except UNEXPECTED as reason:
        # Some (DeepSeek's) put the arguments' text into their own: those want it as it came.
        with suppress(*UNEXPECTED):
            return _apply_template(pair, sides, tokenizer, today, with_objects=False)
        raise RowRefused(
            f"the model's chat template cannot render this conversation: {reason}. Give the messages as it wants "
            "them, or take a model whose template renders them"
        ) from reason


def _apply_template(
    pair: PreferencePair,
    sides: Sequence[Side],
    tokenizer: PreTrainedTokenizerBase,
    today: datetime | None,
    *,
    with_objects: bool,
) -> list[str]:
    """Return the prompt's text, and that of the prompt with each of the sides."""
    prompt, *answers = (_as_dicts(side, with_objects=with_objects) for side in (pair.prompt, *sides))
    tools: list[dict[Any, Any]] | None = None if pair.tools is None else list(pair.tools)
    template = _dated(tokenizer.get_chat_template(tools=tools), today)
    written: dict[str, Any] = {"tools": tools, "chat_template": template, "tokenize": False}
    return [
        str(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, **written)),
        *(str(tokenizer.apply_chat_template(prompt + answer, **written)) for answer in answers),
    ]


def _dated(template: str, today: datetime | None) -> str:
    """Write the date into the template: transformers takes it from the clock, and lets no function through."""
    return template if today is None else TODAY.sub(lambda call: json.dumps(today.strftime(call[2])), template)


def _as_dicts(side: Side, *, with_objects: bool) -> list[dict[str, Any]]:
    dicts = [message.model_dump(exclude_none=True) for message in messages_of(side)]
    for message in dicts:
        # Of a call alone: transformers takes null keys out, and templates that join content to other text then fail.
        message.setdefault("content", "")
    if with_objects:
        for call in (call for message in dicts for call in message.get("tool_calls", ())):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return dicts
