"""HH-RLHF's transcripts: `"\\n\\nHuman: … \\n\\nAssistant: …"`, the whole conversation in one text.

Source: https://github.com/anthropics/hh-rlhf
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from pydantic import TypeAdapter

from schemas.chat_messages import Message
from schemas.row_errors import RowError

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
TURN = re.compile("\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
MESSAGES = TypeAdapter(list[Message])


@dataclass(frozen=True, slots=True)
class TranscriptPair:
    prompt: tuple[Message, ...]
    chosen: tuple[Message]
    rejected: tuple[Message]


def split_transcripts(chosen: str, rejected: str) -> TranscriptPair:
    """Split two transcripts that differ in their last answer alone. Raises: RowError."""
    chosen_prompt, chosen_answer = _split_answer(chosen, field="chosen")
    rejected_prompt, rejected_answer = _split_answer(rejected, field="rejected")
    if chosen_prompt != rejected_prompt:
        turn = _first_difference(chosen_prompt, rejected_prompt)
        raise RowError(
            "rejected", f'differs from "chosen" at turn {turn}, before the last answer; give both sides one prompt'
        )
    *prompt, chosen_message, rejected_message = _messages(
        *_turns(chosen_prompt), ("Assistant", chosen_answer), ("Assistant", rejected_answer)
    )
    return TranscriptPair(tuple(prompt), (chosen_message,), (rejected_message,))


def _split_answer(transcript: str, *, field: str) -> tuple[str, str]:
    if not transcript.startswith(HUMAN):
        reason = r'is text that does not start with "\n\nHuman:"; give an HH-RLHF transcript, messages, or a "prompt"'
        raise RowError(field, reason)
    prompt, mark, answer = transcript.rpartition(ASSISTANT)
    if not mark or HUMAN in answer:
        raise RowError(field, r'does not end with a "\n\nAssistant:" turn; add the answer')
    if not answer.strip():
        raise RowError(field, r'ends with an empty "\n\nAssistant:" turn; give the answer, or remove the pair')
    return prompt, answer


def _turns(transcript: str) -> Iterator[tuple[str, str]]:
    marks_and_texts = iter(TURN.split(transcript)[1:])
    return zip(marks_and_texts, marks_and_texts, strict=True)


def _messages(*turns: tuple[str, str]) -> list[Message]:
    # All at once: a call into pydantic costs as much as a message.
    return MESSAGES.validate_python(
        [{"role": ROLES[speaker], "content": text.removeprefix(" ")} for speaker, text in turns]
    )


def _first_difference(chosen: str, rejected: str) -> int:
    """Number, from 1, of the first turn that is not the same."""
    pairs = zip(_turns(chosen), _turns(rejected), strict=False)
    return 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
