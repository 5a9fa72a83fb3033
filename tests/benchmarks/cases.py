"""The pairs that both trainers train on: real HH-RLHF conversations, as they are or joined to a length."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from schemas.preference_rows import Message, parse_row

PAIRS_FILE = Path("tests/data/hh-rlhf-64.jsonl")
BATCH_SIZE = 4
MAX_LENGTH = 512
MESSAGE_TOKENS = 8
"""About what ChatML adds to a message."""

Turns = list[dict[str, Any]]
Row = dict[str, Turns]
"""TRL's explicit conversational form, which both trainers read."""


@dataclass(frozen=True, slots=True)
class Case:
    rows: Path
    pairs: int
    batch_size: int = BATCH_SIZE
    max_length: int = MAX_LENGTH


def write_pairs(path: Path, *, pairs: int, batch_size: int = BATCH_SIZE) -> Case:
    """The first pairs of the file, as they are."""
    _write(path, _read_rows()[:pairs])
    return Case(path, pairs, batch_size)


def write_long_pairs(
    path: Path, *, length: int, model: Path, pairs: int = BATCH_SIZE, batch_size: int = BATCH_SIZE
) -> Case:
    """Pairs whose longer side ends just below `length`: other conversations come before a pair's own."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = _read_rows()
    turns = [row["prompt"] + row["chosen"] for row in rows]
    others = [(each, _count(each, tokenizer)) for each in turns]
    whole = [row for row in rows if _longer_side(row, tokenizer) < length][:pairs]
    _write(path, [_grow(row, others, length - _longer_side(row, tokenizer)) for row in whole])
    return Case(path, len(whole), batch_size, length)


def _grow(row: Row, others: Sequence[tuple[Turns, int]], room: int) -> Row:
    """Put conversations of at most `room` tokens together before the row's own."""
    before: Turns = []
    own = row["prompt"] + row["chosen"]
    # Where the rows are too few for the length, they come again.
    for turns, tokens in (*others, *others, *others):
        if tokens <= room and turns != own:
            before = turns + before
            room -= tokens
    return row | {"prompt": before + row["prompt"]}


def _longer_side(row: Row, tokenizer: PreTrainedTokenizerBase) -> int:
    return max(_count(row["prompt"] + row[side], tokenizer) for side in ("chosen", "rejected"))


def _count(turns: Turns, tokenizer: PreTrainedTokenizerBase) -> int:
    return sum(len(tokenizer.encode(turn["content"])) + MESSAGE_TOKENS for turn in turns)


def _read_rows() -> list[Row]:
    pairs = [parse_row(line, row_format="hh_rlhf")[1] for line in PAIRS_FILE.read_bytes().splitlines()]
    return [
        {"prompt": _turns(pair.prompt), "chosen": _turns(pair.chosen), "rejected": _turns(pair.rejected)}
        for pair in pairs
    ]


def _turns(side: str | tuple[Message, ...]) -> Turns:
    assert not isinstance(side, str)
    return [message.model_dump(exclude_none=True) for message in side]


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
