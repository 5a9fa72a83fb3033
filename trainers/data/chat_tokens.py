"""Preference pairs as token ids: exactly TRL 1.16's tokenisation, but nothing is dropped or cut in silence.

The prompt, prompt + chosen and prompt + rejected are tokenised whole, since tokens may merge across the boundary or a
template may render a prompt alone differently; the prompt is what all three begin with.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from transformers import PreTrainedTokenizerBase

from schemas.row_errors import shown
from trainers.data.left_out import common_length, left_out, lost_end, messages_of
from trainers.data.pair_texts import pair_texts, prompt_left_out
from trainers.data.preference_dataset import PreferenceRow
from trainers.data.refused_rows import RefusedRows, RowRefused
from trainers.errors import TrainerError
from trainers.naming import first_names

PAIRS_NAMED = 8
SIDES = ("preferred", "non-preferred")
ROWS_AT_ONCE = 512
"""A fast tokenizer spreads the texts of one call over all cores."""


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
    prompt_lost_end: list[int] = field(default_factory=list)
    """The template ends the prompt with text that it leaves out where an answer follows."""
    lost_end: str = ""
    """That text, of the first of these."""
    answer_lost_parts: list[int] = field(default_factory=list)
    """The template leaves out a part of an answer."""
    lost_parts: str = ""
    """That part's words, of the first of these."""
    prompt_lost_tools: list[int] = field(default_factory=list)
    """The template leaves out tools of the prompt, calls of them, or their answers."""
    lost_tools: str = ""
    """Their names and words, of the first of these."""


def tokenize_rows(
    rows: Iterable[PreferenceRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    error: type[TrainerError],
    today: datetime | None = None,
) -> TokenizedPairs:
    """Tokenise and cut to `max_length`, keeping the start. A template that writes a date writes that of `today`.

    Raises: UnusableModel, when the tokenizer has no chat template; `error`, naming the lines that it refuses.
    """
    tokenized, refused, coming, known_ids = TokenizedPairs(), RefusedRows(), iter(rows), dict[int, int]()
    while some := list(islice(coming, ROWS_AT_ONCE)):
        texts = [_checked_texts(row, tokenizer, today, tokenized, refused) for row in some]
        if not refused.lines:
            for whole in _tokenize(some, texts, tokenizer, known_ids):
                _add(tokenized, whole, max_length=max_length)
    if refused.lines:
        raise error(refused.message(error.param))
    return tokenized


def _checked_texts(
    row: PreferenceRow,
    tokenizer: PreTrainedTokenizerBase,
    today: datetime | None,
    tokenized: TokenizedPairs,
    refused: RefusedRows,
) -> list[str]:
    """Return the row's three texts, or none, when it is refused."""
    try:
        texts = pair_texts(row.pair, tokenizer, today)
        _note_left_out(tokenized, row, texts, eos=str(tokenizer.eos_token))
    except RowRefused as reason:
        refused.add(row.line, reason)
        return []
    if found := prompt_left_out(row.pair, tokenizer, today):
        tokenized.lost_tools = tokenized.lost_tools or found
        tokenized.prompt_lost_tools.append(row.line)
    return texts


def _note_left_out(tokenized: TokenizedPairs, row: PreferenceRow, texts: Sequence[str], *, eos: str) -> None:
    """Raises: RowRefused, for an answer of which nothing is left: a model would learn to prefer, or avoid, silence."""
    prompt, *wholes = texts
    if end := lost_end(prompt, wholes):
        tokenized.lost_end = tokenized.lost_end or end
        tokenized.prompt_lost_end.append(row.line)
    answers = map(messages_of, (row.pair.chosen, row.pair.rejected))
    lost = [
        left_out(answer, prompt=prompt, whole=whole, eos=eos) for answer, whole in zip(answers, wholes, strict=True)
    ]
    for side, found in zip(SIDES, lost, strict=True):
        if found is not None and found.is_all:
            raise RowRefused(
                f"the model's chat template leaves out all of the {side} answer: "
                f'"{shown(found.text)}". Take a model whose template writes it (renders tool calls, if it is one), or '
                "write it as text into the answer's content"
            )
    if found := next(filter(None, lost), None):
        tokenized.lost_parts = tokenized.lost_parts or found.text
        tokenized.answer_lost_parts.append(row.line)


def _add(tokenized: TokenizedPairs, whole: PairTokens, *, max_length: int) -> None:
    if len(whole.prompt) >= max_length:
        tokenized.prompt_too_long.append(whole.line)
        return
    pair = cut(whole, max_length=max_length)
    tokenized.cut_completions += (pair.chosen != whole.chosen) + (pair.rejected != whole.rejected)
    if pair.chosen == pair.rejected:
        tokenized.became_equal.append(whole.line)
    tokenized.pairs.append(pair)


def name_pairs(pairs: Sequence[PairTokens]) -> str:
    """Name the first of them for a message, and count the rest."""
    return first_names([pair.name for pair in pairs], PAIRS_NAMED)


def split_at_boundary(
    prompt: Sequence[int], prompt_chosen: Sequence[int], prompt_rejected: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Cut three tokenised texts where the prompt stops being what both others begin with."""
    length = min(common_length(prompt, prompt_chosen), common_length(prompt, prompt_rejected))
    return tuple(prompt[:length]), tuple(prompt_chosen[length:]), tuple(prompt_rejected[length:])


def _tokenize(
    rows: Sequence[PreferenceRow],
    texts: Sequence[list[str]],
    tokenizer: PreTrainedTokenizerBase,
    known_ids: dict[int, int],
) -> Iterator[PairTokens]:
    """One call for all texts and one for all conversations: a chat template writes the special tokens itself."""
    kinds = [row.pair.is_conversational for row in rows]
    ids = {
        kind: iter(tokenizer(_of_kind(kind, kinds, texts), add_special_tokens=not kind)["input_ids"])
        for kind in set(kinds)
    }
    for row, kind in zip(rows, kinds, strict=True):
        sides = split_at_boundary(*islice(ids[kind], 3))
        prompt, chosen, rejected = (_share(side, known_ids) for side in sides)
        pair = row.pair
        yield PairTokens(prompt, chosen, rejected, line=row.line, row_id=pair.row_id, weight=pair.weight)


def _of_kind(kind: bool, kinds: Sequence[bool], texts: Sequence[list[str]]) -> list[str]:
    return [text for other, three in zip(kinds, texts, strict=True) if other == kind for text in three]


def _share(tokens: tuple[int, ...], ids: dict[int, int]) -> tuple[int, ...]:
    """One object for each id: tokenizers make one for each token, which takes four times its place in a tuple."""
    return tuple(map(ids.setdefault, tokens, tokens))


def cut(pair: PairTokens, *, max_length: int) -> PairTokens:
    room = max_length - len(pair.prompt)
    return replace(pair, chosen=pair.chosen[:room], rejected=pair.rejected[:room])
