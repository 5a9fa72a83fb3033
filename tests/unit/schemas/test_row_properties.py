"""What holds for every row and every bytes: valid rows round-trip, anything else is a RowError and nothing worse."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.preference_rows import RowError, parse_row
from tests.unit.schemas.rows import Json, encode, explicit_row, hh_row, implicit_row, openai_row, text_row

pytestmark = pytest.mark.slow

CALM = settings(deadline=None)  # machines that test are shared
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
ANSWER = TEXT.filter(lambda text: text.strip() != "")
TURN_TEXT = ANSWER.filter(lambda text: "\n\nHuman:" not in text and "\n\nAssistant:" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
GOOD_ROWS = st.sampled_from([openai_row(), explicit_row(), implicit_row(), text_row(), hh_row()])
KEYS = st.sampled_from(
    ["prompt", "chosen", "rejected", "input", "preferred_output", "non_preferred_output", "tools", "weight", "id"]
)


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """A prompt: perhaps a system message, any number of exchanges, a question."""
    system = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    exchanges = draw(st.lists(st.tuples(TEXT, TEXT), max_size=3))
    turns = [message for question, answer in exchanges for message in (user(question), assistant(answer))]
    return [*system, *turns, user(draw(TEXT))]


def assert_says_rowerror_or_nothing(line: bytes) -> None:
    said = "read"
    try:
        parse_row(line, row_format=None)
    except RowError as error:
        said = str(error)
    assert said.isprintable()


@CALM
@given(prompt=conversations(), chosen=ANSWER, rejected=ANSWER)
def test_a_conversation_reads_back_as_it_was_written(prompt: list[Json], chosen: str, rejected: str) -> None:
    row = openai_row(
        input={"messages": prompt}, preferred_output=[assistant(chosen)], non_preferred_output=[assistant(rejected)]
    )

    _, pair = parse_row(encode(row), row_format=None)

    assert not isinstance(pair.prompt, str)
    assert [{"role": message.role, "content": message.content} for message in pair.prompt] == prompt
    explicit = {"prompt": prompt, "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}
    assert parse_row(encode(explicit), row_format=None)[1] == pair
    implicit = {"chosen": [*prompt, assistant(chosen)], "rejected": [*prompt, assistant(rejected)]}
    assert parse_row(json.dumps(implicit).encode(), row_format=None)[1] == pair


@CALM
@given(turns=st.lists(TURN_TEXT, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2 == 1), answer=TURN_TEXT)
def test_a_transcript_reads_back_as_its_turns(turns: list[str], answer: str) -> None:
    speakers = ["Human", "Assistant"] * len(turns)
    start = "".join(f"\n\n{speaker}: {text}" for speaker, text in zip(speakers, turns, strict=False))
    row = hh_row(chosen=f"{start}\n\nAssistant: {answer}", rejected=f"{start}\n\nAssistant: no")

    _, pair = parse_row(encode(row), row_format=None)

    assert not isinstance(pair.prompt, str)
    assert not isinstance(pair.chosen, str)
    assert [message.content for message in pair.prompt] == turns
    assert pair.chosen[0].content == answer


@CALM
@given(row=GOOD_ROWS, key=KEYS, value=JSON)
def test_a_field_of_any_json_is_read_or_a_row_error(row: Json, key: str, value: object) -> None:
    assert_says_rowerror_or_nothing(json.dumps(row | {key: value}).encode())


@CALM
@given(row=GOOD_ROWS, key=KEYS, message=st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), JSON))
def test_messages_of_any_json_are_read_or_a_row_error(row: Json, key: str, message: Json) -> None:
    assert_says_rowerror_or_nothing(json.dumps(row | {key: [message]}).encode())


@CALM
@given(row=GOOD_ROWS, data=st.data())
def test_flipped_and_cut_bytes_are_read_or_a_row_error(row: Json, data: st.DataObject) -> None:
    line = bytearray(encode(row))
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    assert_says_rowerror_or_nothing(bytes(line[: data.draw(st.integers(0, len(line)))]))
    assert_says_rowerror_or_nothing(bytes(line))


@CALM
@given(st.binary(max_size=200))
def test_any_bytes_are_a_row_error(line: bytes) -> None:
    assert_says_rowerror_or_nothing(line)
