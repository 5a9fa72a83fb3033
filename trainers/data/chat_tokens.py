"""Preference pairs as token ids: exactly TRL 1.16's tokenisation, but nothing is dropped or cut in silence.

The prompt, prompt + chosen and prompt + rejected are tokenised whole, since tokens may merge across the boundary or a
template may render a prompt alone differently; the prompt is what all three begin with.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from schemas.preference_rows import Message, PreferencePair
from trainers.data.preference_dataset import PreferenceRow
from trainers.errors import TrainerError, UnusableModel

PAIRS_NAMED = 8
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""How chat templates ask for the date."""


@dataclass(frozen=True, slots=True)
class PairTokens:
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    line: int
    row_id: str | None
    weight: float = 1.0
    """As the row says, or over the mean of its file once the whole file is known."""

    @property
    def predicted_chosen_tokens(self) -> int:
        """A first token without a token before it (an empty prompt) is not predicted."""
        return len(self.chosen) if self.prompt else max(0, len(self.chosen) - 1)

    @property
    def common_tokens(self) -> int:
        """First tokens of the completions that are the same in both."""
        places = enumerate(zip(self.chosen, self.rejected, strict=False))
        return next(
            (place for place, (one, other) in places if one != other), min(len(self.chosen), len(self.rejected))
        )

    @property
    def packed_length(self) -> int:
        """Tokens with those that both sides begin with counted once."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected) - self.common_tokens

    @property
    def longest_row(self) -> int:
        """Tokens of the prompt and its longer side."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def trained_tokens(self) -> int:
        """Prompt and completion of both sides."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def name(self) -> str:
        return f"line {self.line}" if self.row_id is None else f"line {self.line} (id {self.row_id})"


@dataclass(slots=True)
class TokenizedPairs:
    """The usable pairs, and the lines of what was lost on the way."""

    pairs: list[PairTokens] = field(default_factory=list)
    prompt_too_long: list[int] = field(default_factory=list)
    cut_completions: int = 0
    """Completions, not pairs, that lost their end to `max_length`."""
    became_equal: list[int] = field(default_factory=list)
    """Chosen and rejected have the same tokens: the pair teaches nothing."""


def tokenize_rows(
    rows: Sequence[PreferenceRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    error: type[TrainerError],
    today: datetime | None = None,
) -> TokenizedPairs:
    """Tokenise and cut to `max_length`, keeping the start. A template that writes a date writes that of `today`.

    Raises: UnusableModel, when the tokenizer has no chat template; `error`, naming the line that it cannot render.
    """
    tokenized = TokenizedPairs()
    for row in rows:
        whole = _tokenize(row, tokenizer, error, today)
        if len(whole.prompt) >= max_length:
            tokenized.prompt_too_long.append(row.line)
            continue
        pair = cut(whole, max_length=max_length)
        tokenized.cut_completions += (pair.chosen != whole.chosen) + (pair.rejected != whole.rejected)
        if pair.chosen == pair.rejected:
            tokenized.became_equal.append(row.line)
        tokenized.pairs.append(pair)
    return tokenized


def name_pairs(pairs: Sequence[PairTokens]) -> str:
    """Name the first of them for a message, and count the rest."""
    named = ", ".join(pair.name for pair in pairs[:PAIRS_NAMED])
    rest = len(pairs) - PAIRS_NAMED
    return f"{named} and {rest} more" if rest > 0 else named


def split_at_boundary(
    prompt: Sequence[int], prompt_chosen: Sequence[int], prompt_rejected: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Cut three tokenised texts where the prompt stops being what both others begin with."""
    length = min(_common_prefix(prompt, prompt_chosen), _common_prefix(prompt, prompt_rejected))
    return tuple(prompt[:length]), tuple(prompt_chosen[length:]), tuple(prompt_rejected[length:])


def _common_prefix(ids: Sequence[int], other_ids: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, other_ids, strict=False)))


def _tokenize(
    row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, error: type[TrainerError], today: datetime | None
) -> PairTokens:
    pair = row.pair
    texts = _render(row, tokenizer, error, today) if pair.is_conversational else _texts(pair, tokenizer)
    # A chat template writes the special tokens itself.
    ids = tokenizer(texts, add_special_tokens=not pair.is_conversational)["input_ids"]
    prompt, chosen, rejected = split_at_boundary(*ids)
    return PairTokens(prompt, chosen, rejected, line=row.line, row_id=pair.row_id, weight=pair.weight)


def _texts(pair: PreferencePair, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The three texts of a pair without messages; completions end with EOS."""
    end = str(tokenizer.eos_token)
    prompt, chosen, rejected = str(pair.prompt), str(pair.chosen), str(pair.rejected)
    return [prompt, prompt + chosen.removesuffix(end) + end, prompt + rejected.removesuffix(end) + end]


def _render(
    row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, error: type[TrainerError], today: datetime | None
) -> list[str]:
    if not tokenizer.chat_template:
        raise UnusableModel("the model's tokenizer has no chat template; train it on rows of plain text")
    pair = row.pair
    prompt, chosen, rejected = (_as_dicts(side) for side in (pair.prompt, pair.chosen, pair.rejected))
    tools: list[dict[Any, Any]] | None = None if pair.tools is None else list(pair.tools)
    try:
        template = _dated(tokenizer.get_chat_template(tools=tools), today)
        written: dict[str, Any] = {"tools": tools, "chat_template": template}
        return [
            str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **written)),
            str(tokenizer.apply_chat_template(prompt + chosen, tokenize=False, **written)),
            str(tokenizer.apply_chat_template(prompt + rejected, tokenize=False, **written)),
        ]
    # A template is a program of the model's makers; these are what such programs raise on messages they do not expect.
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as reason:
        raise error(f"line {row.line}: the model's chat template cannot render this conversation: {reason}") from reason


def _dated(template: str, today: datetime | None) -> str:
    """Write the date into the template: transformers takes it from the clock, and lets no function through."""
    return template if today is None else TODAY.sub(lambda call: json.dumps(today.strftime(call[2])), template)


def _as_dicts(messages: str | tuple[Message, ...]) -> list[dict[str, Any]]:
    return [message.model_dump(exclude_none=True) for message in messages if not isinstance(message, str)]


def cut(pair: PairTokens, *, max_length: int) -> PairTokens:
    room = max_length - len(pair.prompt)
    return replace(pair, chosen=pair.chosen[:room], rejected=pair.rejected[:room])
