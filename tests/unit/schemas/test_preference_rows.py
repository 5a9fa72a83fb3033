"""Good rows of every format, and what becomes of them."""

import pickle
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletionMessage

from schemas.preference_rows import Message, PreferencePair, RowError, RowFormat, parse_row
from tests.unit.schemas.rows import (
    BAD,
    CALL,
    CALLING,
    GOOD,
    TOOL,
    TOOL_ANSWER,
    USER,
    Json,
    encode,
    explicit_row,
    hh_row,
    implicit_row,
    openai_row,
    text_row,
)

DATA = Path(__file__).parents[2] / "data"


def pair_of(row: Json) -> PreferencePair:
    return parse_row(encode(row), row_format=None)[1]


def texts(messages: object) -> list[tuple[str, str | None]]:
    assert isinstance(messages, tuple)
    return [(message.role, message.content) for message in messages]


@pytest.mark.parametrize(
    ("row", "row_format"),
    [
        pytest.param(openai_row(), "openai", id="openai"),
        pytest.param(explicit_row(), "trl_explicit", id="trl_explicit"),
        pytest.param(implicit_row(), "trl_implicit", id="trl_implicit"),
        pytest.param(hh_row(), "hh_rlhf", id="hh_rlhf"),
    ],
)
def test_every_conversational_format_reads_as_the_same_pair(row: Json, row_format: RowFormat) -> None:
    found, pair = parse_row(encode(row), row_format=None)

    assert found == row_format
    assert pair.is_conversational
    assert texts(pair.prompt) == [("user", "Capital of France?")]
    assert texts(pair.chosen) == [("assistant", "Paris.")]
    assert texts(pair.rejected) == [("assistant", "Lyon.")]
    assert parse_row(encode(row), row_format=row_format) == (found, pair)


def test_text_rows_keep_their_text_untouched() -> None:
    pair = pair_of(text_row())

    assert not pair.is_conversational
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Capital of France?", " Paris.", " Lyon.")


def test_openais_older_names_read_the_same() -> None:
    row = {"input": {"messages": [USER]}, "preferred_completion": [GOOD], "non_preferred_completion": [BAD]}

    assert pair_of(row) == pair_of(openai_row())


def test_row_fields_beside_the_pair_are_read() -> None:
    pair = pair_of(openai_row(weight=2, id=17, annotator="anna", metadata={"source": ["x", None]}))

    assert (pair.weight, pair.row_id) == (2.0, "17")
    assert pair_of(openai_row()).weight == 1.0


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Pa"}, {"type": "text", "text": "ris."}]

    assert pair_of(openai_row(preferred_output=[{"role": "assistant", "content": parts}])) == pair_of(openai_row())


def test_an_answer_that_the_client_dumped_is_read_without_its_nulls() -> None:
    saved = ChatCompletionMessage(role="assistant", content="Paris.").model_dump()
    assert {name for name, value in saved.items() if value is None} > {"refusal", "function_call", "audio"}
    parts = [{"role": "user", "content": [{"type": "text", "text": USER["content"]}], "audio": None}]

    assert pair_of(openai_row(preferred_output=[saved])) == pair_of(openai_row())
    assert pair_of(openai_row(input={"messages": parts})) == pair_of(openai_row())


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_message_that_a_server_answered_is_read_without_its_empty_lists(role: str) -> None:
    empty = {"role": role, "annotations": [], "tool_calls": [], "reasoning_content": None}
    row = openai_row(
        input={"messages": [USER | empty if role == "user" else USER]},
        preferred_output=[GOOD | empty if role == "assistant" else GOOD],
    )

    assert pair_of(row) == pair_of(openai_row())


def test_developer_is_system() -> None:
    pair = pair_of(openai_row(input={"messages": [{"role": "developer", "content": "Be brief."}, USER]}))

    assert texts(pair.prompt)[0] == ("system", "Be brief.")


def test_tools_and_their_calls_are_kept_as_written() -> None:
    row = openai_row(
        input={"messages": [USER, CALLING, TOOL_ANSWER], "tools": [TOOL], "parallel_tool_calls": False},
    )

    pair = pair_of(row)

    assert pair.tools == (TOOL,)
    assert isinstance(pair.prompt[1], Message)
    assert pair.prompt[1].model_dump(mode="json", exclude_none=True)["tool_calls"] == [CALL]


def test_outputs_may_have_many_turns_with_tools_between() -> None:
    output = [
        CALLING,
        TOOL_ANSWER,
        GOOD,
        {"role": "user", "content": "And Italy?"},
        {"role": "assistant", "content": "Rome"},
    ]

    assert len(pair_of(openai_row(preferred_output=output)).chosen) == 5


def test_an_answer_may_be_a_tool_call_alone() -> None:
    assert len(pair_of(openai_row(preferred_output=[CALLING])).chosen) == 1


def test_an_output_may_answer_a_call_of_the_prompt_again() -> None:
    prompt = [USER, CALLING, TOOL_ANSWER]

    assert pair_of(openai_row(input={"messages": prompt}, preferred_output=[GOOD, TOOL_ANSWER, GOOD]))


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt_length"),
    [
        pytest.param([USER, GOOD], [USER, BAD], 1, id="last answer differs"),
        pytest.param([USER, GOOD], [USER, GOOD], 1, id="equal sides"),
        pytest.param([USER, GOOD, USER, GOOD], [USER, GOOD, USER, BAD], 3, id="shared turns belong to the prompt"),
        pytest.param([USER, GOOD, USER, GOOD], [USER, GOOD], 1, id="one side goes on where the other ends"),
        pytest.param([USER, CALLING, TOOL_ANSWER, GOOD], [USER, CALLING, TOOL_ANSWER, BAD], 3, id="shared tool call"),
    ],
)
def test_the_implicit_prompt_ends_at_the_last_shared_user_or_tool_message(
    chosen: list[Json], rejected: list[Json], prompt_length: int
) -> None:
    pair = pair_of(implicit_row(chosen=chosen, rejected=rejected))

    assert len(pair.prompt) == prompt_length
    assert len(pair.chosen) == len(chosen) - prompt_length
    assert len(pair.rejected) == len(rejected) - prompt_length


def test_hh_transcripts_lose_one_leading_space_a_turn() -> None:
    start = "\n\nHuman:  two\n\nAssistant: one\n\n\n\nHuman:none \n\nAssistant:"

    pair = pair_of(hh_row(chosen=f"{start} yes\n", rejected=f"{start}no"))

    assert texts(pair.prompt) == [("user", " two"), ("assistant", "one\n\n"), ("user", "none ")]
    assert texts(pair.chosen) == [("assistant", "yes\n")]
    assert texts(pair.rejected) == [("assistant", "no")]


@pytest.mark.parametrize(("name", "row_format"), [("hh-rlhf-64.jsonl", "hh_rlhf"), ("alpaca-eval-40.jsonl", "openai")])
def test_real_rows_are_read(name: str, row_format: RowFormat) -> None:
    pairs = [parse_row(line, row_format=row_format)[1] for line in (DATA / name).read_bytes().splitlines()]

    assert all(pair.prompt and pair.chosen != pair.rejected for pair in pairs)


def test_a_row_error_travels_between_processes() -> None:
    error = RowError("chosen.0.content", "is empty; give text")

    copy = pickle.loads(pickle.dumps(error))

    assert (copy.field, copy.reason, str(copy)) == (error.field, error.reason, str(error))
