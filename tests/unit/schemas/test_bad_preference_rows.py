"""Every way a row can be wrong: the field that is told, and the words a person looks for in the reason."""

import pytest

from schemas.preference_rows import RowError, parse_row
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

SYSTEM: Json = {"role": "system", "content": "Be brief."}
H = "\n\nHuman:"
A = "\n\nAssistant:"


def prompt(*messages: object, **more: object) -> Json:
    return openai_row(input={"messages": list(messages)} | more)


def chosen(*messages: object) -> Json:
    return openai_row(preferred_output=list(messages))


def calling(**function: object) -> Json:
    return chosen(CALLING | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": "{}"} | function}]})


def parts(*items: object) -> Json:
    return prompt({"role": "user", "content": list(items)})


BAD_ROWS = {
    # row, field, words
    "no fields": ({}, None, "has no fields"),
    "foreign fields": ({"question": "x", "answer": "y"}, None, "none of the formats"),
    "misspelled only field": ({"promt": "x"}, "promt", 'did you mean "prompt"?'),
    "misspelled field": (
        {"input": {"messages": [USER]}, "prefered_output": [GOOD], "non_preferred_output": [BAD]},
        "prefered_output",
        'did you mean "preferred_output"?',
    ),
    "unknown field": (openai_row(score=3), "score", "not a known field; remove it"),
    "unknown field of a message": (
        prompt({"role": "user", "contents": "x"}),
        "input.messages.0.contents",
        '"content"?',
    ),
    "unknown field near one that is there": (
        prompt(USER | {"contents": "x"}),
        "input.messages.0.contents",
        "remove it",
    ),
    "score beside its side": (text_row(score_chosen=3), "score_chosen", "not a known field; remove it"),
    "misspelled messages": (openai_row(input={"message": [USER]}), "input.message", 'did you mean "messages"?'),
    "misspelled field of a function": (
        prompt(USER, tools=[TOOL | {"function": {"name": "f", "descriptio": "x"}}]),
        "input.tools.0.function.descriptio",
        'did you mean "description"?',
    ),
    "flat tool": (
        prompt(USER, tools=[{"type": "function", "name": "f", "description": "x", "parameters": {}}]),
        "input.tools.0.name",
        'put "name", "description", "parameters" into "function"',
    ),
    "tools beside the input": (openai_row(tools=[TOOL]), "tools", 'put "tools" into "input"'),
    "name of a function said twice": (prompt(USER, tools=[TOOL | {"name": "f"}]), "input.tools.0.name", "remove it"),
    "flat tool call": (
        chosen({"role": "assistant", "tool_calls": [{"id": "x", "name": "f", "arguments": "{}"}]}),
        "preferred_output.0.tool_calls.0.name",
        'put "name", "arguments" into "function"',
    ),
    "text prompt that the sides hold": (implicit_row(prompt="Capital?"), "prompt", 'remove "prompt"'),
    "prompt that the sides hold": (implicit_row(prompt=[USER]), "prompt", 'remove "prompt"'),
    "message weight": (chosen(GOOD | {"weight": 0}), "preferred_output.0.weight", "every token of both sides counts"),
    "function_call": (chosen(GOOD | {"function_call": {}}), "preferred_output.0.function_call", "tool_calls"),
    "formats mixed in a row": (openai_row(chosen=[GOOD]), "chosen", "not a known field"),
    "both names of a side": (openai_row(preferred_completion=[GOOD]), "preferred_completion", 'use "preferred_output"'),
    "missing side": ({"prompt": [USER], "chosen": [GOOD]}, "rejected", "is missing; add it"),
    "missing text side": ({"prompt": "x", "chosen": "y"}, "rejected", "is missing"),
    "missing implicit side": ({"rejected": [USER, GOOD]}, "chosen", "is missing"),
    "missing transcript": ({"chosen": f"{H} a{A} b"}, "rejected", "is missing"),
    "missing input": ({"preferred_output": [GOOD], "non_preferred_output": [BAD]}, "input", "is missing"),
    "missing messages": (openai_row(input={}), "input.messages", "is missing"),
    "input of messages": (openai_row(input=[USER]), "input", "is a list; give an object"),
    "side of text": (openai_row(preferred_output="Paris."), "preferred_output", "is text; give a list"),
    "side of one message": (openai_row(preferred_output=GOOD), "preferred_output", "is an object; give a list"),
    "null side": (explicit_row(rejected=None), "rejected", "is null; give a list"),
    "numeric prompt": (text_row(prompt=3), "prompt", "is a number"),
    "message of text": (prompt("hi"), "input.messages.0", "is text; give an object"),
    "text and messages": (explicit_row(prompt="Capital?"), "chosen", 'is messages while "prompt" is text'),
    "transcript and messages": (implicit_row(rejected=f"{H} a{A} b"), "rejected", 'is text while "chosen" is messages'),
    "no output": (openai_row(preferred_output=[]), "preferred_output", "is empty; give one assistant message"),
    "no prompt": (prompt(), "input.messages", "is empty"),
    "empty text prompt": (text_row(prompt=" "), "prompt", "is empty"),
    "empty text answer": (text_row(rejected="\n"), "rejected", "is empty"),
    "empty answer": (chosen({"role": "assistant", "content": ""}), "preferred_output.0.content", "is empty"),
    "white answer": (chosen({"role": "assistant", "content": " \n\t"}), "preferred_output.0.content", "is empty"),
    "empty answer in an implicit row": (
        implicit_row(rejected=[USER, {"role": "assistant", "content": ""}]),
        "rejected.1.content",
        "is empty",
    ),
    "null answer": (chosen({"role": "assistant", "content": None}), "preferred_output.0.content", "null; give text or"),
    "null question": (prompt({"role": "user"}), "input.messages.0.content", "is missing or null; give text"),
    "number for text": (prompt({"role": "user", "content": 3}), "input.messages.0.content", "is a number; give text"),
    "no role": (prompt({"content": "x"}), "input.messages.0.role", "is missing"),
    "foreign role": (prompt(USER | {"role": "narrator"}), "input.messages.0.role", "is \"narrator\"; give 'system'"),
    "function role": (prompt(USER | {"role": "function"}), "input.messages.0.role", 'use the role "tool"'),
    "human role": (prompt(USER | {"role": "human"}), "input.messages.0.role", 'use the role "user"'),
    "late system": (prompt(USER, SYSTEM, USER), "input.messages.1.role", "put it first"),
    "second system": (prompt(SYSTEM, SYSTEM, USER), "input.messages.1.role", "only once"),
    "system in an output": (chosen(GOOD, SYSTEM, GOOD), "preferred_output.1.role", "put it first in the prompt"),
    "prompt ends with an answer": (prompt(USER, GOOD), "input.messages.1.role", "must end with a user or tool message"),
    "output starts with a question": (chosen(USER, GOOD), "preferred_output.0.role", "must start with an assistant"),
    "output ends with a question": (chosen(GOOD, USER), "preferred_output.1.role", "must end with an assistant"),
    "tool answer without a call": (prompt(USER, TOOL_ANSWER), "input.messages.1.tool_call_id", "which no assistant"),
    "tool answer without an id": (
        prompt(USER, CALLING, {"role": "tool", "content": "x"}),
        "input.messages.2.tool_call_id",
        "is missing",
    ),
    "tool answer without content": (
        prompt(USER, CALLING, {"role": "tool", "tool_call_id": "call_1"}),
        "input.messages.2.content",
        "is missing or null",
    ),
    "answer to the other side's call": (
        openai_row(preferred_output=[CALLING], non_preferred_output=[BAD, TOOL_ANSWER, BAD]),
        "non_preferred_output.1.tool_call_id",
        "which no assistant message before it calls",
    ),
    "user calls a tool": (prompt(USER | {"tool_calls": [CALL]}), "input.messages.0.tool_calls", "only assistant"),
    "user answers a call": (prompt(USER | {"tool_call_id": "x"}), "input.messages.0.tool_call_id", "only tool"),
    "no calls in tool_calls, and no text": (
        chosen({"role": "assistant", "content": None, "tool_calls": []}),
        "preferred_output.0.content",
        "null; give text or",
    ),
    "annotations": (chosen(GOOD | {"annotations": [1]}), "preferred_output.0.annotations", "remove it"),
    "empty list in the row": (openai_row(scores=[]), "scores", "remove it"),
    "arguments not text": (calling(arguments={}), "preferred_output.0.tool_calls.0.function.arguments", "give text"),
    "arguments not JSON": (calling(arguments="{x"), "preferred_output.0.tool_calls.0.function.arguments", "not JSON"),
    "an argument twice": (
        calling(arguments='{"a": 1, "a": 2}'),
        "preferred_output.0.tool_calls.0.function.arguments",
        'duplicate key "a"',
    ),
    "arguments no object": (calling(arguments="[]"), "preferred_output.0.tool_calls.0.function.arguments", "no object"),
    "call without a name": (calling(name=""), "preferred_output.0.tool_calls.0.function.name", "at least 1"),
    "tool of another type": (prompt(USER, tools=[TOOL | {"type": "x"}]), "input.tools.0.type", "give 'function'"),
    "tools no list": (prompt(USER, tools=TOOL), "input.tools", "give a list"),
    "image part": (parts({"type": "image_url", "image_url": {}}), "input.messages.0.content.0.type", '"image_url"'),
    "part without text": (parts({"type": "text"}), "input.messages.0.content.0.text", "give text"),
    "part of text": (parts("x"), "input.messages.0.content.0", "is text; give a part"),
    "part without type": (parts({"text": "x"}), "input.messages.0.content.0.type", "missing"),
    "part with more": (parts({"type": "text", "text": "x", "a": 1}), "input.messages.0.content.0.a", "known field"),
    "no parts": (parts(), "input.messages.0.content", "is an empty list"),
    "implicit sides share nothing": (
        implicit_row(rejected=[{"role": "user", "content": "Other?"}, BAD]),
        "rejected",
        "shares no first user message",
    ),
    "implicit side empty": (implicit_row(chosen=[]), "rejected", "shares no first user message"),
    "implicit side without an answer": (implicit_row(rejected=[USER]), "rejected", "is empty"),
    "plain text without a prompt": ({"chosen": "a", "rejected": "b"}, "chosen", r'does not start with "\n\nHuman:"'),
    "transcript starts with an answer": (hh_row(chosen=f"{A} b"), "chosen", "does not start"),
    "transcript ends with a question": (hh_row(chosen=f"{H} a{A} b{H} c"), "chosen", "does not end"),
    "transcript without an answer": (hh_row(rejected=f"{H} a"), "rejected", "does not end"),
    "transcript with an empty answer": (hh_row(rejected=f"{H} a{A} "), "rejected", "empty"),
    "transcripts of two prompts": (
        hh_row(chosen=f"{H} a{A} b{H} c{A} d", rejected=f"{H} a{A} x{H} c{A} d"),
        "rejected",
        'differs from "chosen" at turn 2',
    ),
    "weight of zero": (openai_row(weight=0), "weight", "greater than 0"),
    "negative weight": (openai_row(weight=-1.5), "weight", "greater than 0"),
    "true weight": (openai_row(weight=True), "weight", "is true or false; give a number"),
    "text weight": (openai_row(weight="1"), "weight", "is text; give a number"),
    "huge weight": (openai_row(weight=10**400), "weight", "is a huge number; give a smaller one"),
    "an id that is true": (openai_row(id=True), "id", "is true or false; give text or a whole number"),
    "an annotator between two": (openai_row(annotator=1.5), "annotator", "is a number; give text or a whole number"),
    "metadata of text": (openai_row(metadata="x"), "metadata", "give an object"),
    "NUL in text": (text_row(chosen="a\0b"), "chosen", "NUL"),
    "NUL deep inside": (openai_row(metadata={"a": [{"b": "\0"}]}), "metadata.a.0.b", "NUL"),
    "NUL in a name": (openai_row(metadata={"a\0": 1}), "metadata", "NUL"),
}


@pytest.mark.parametrize(("row", "field", "words"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_names_its_field_and_remedy(row: Json, field: str | None, words: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(encode(row), row_format=None)

    assert (caught.value.field, words in caught.value.reason) == (field, True), str(caught.value)


START = b'{"prompt": "x", "chosen": "y", "rejected": '
BAD_LINES = {
    "nothing": (b"", "is not valid JSON"),
    "a list": (b"[1]", "is a list, not a JSON object"),
    "text": (b'"x"', "is text, not a JSON object"),
    "null": (b"null", "is null, not a JSON object"),
    "cut off": (START, "is not valid JSON at column 43"),
    "single quotes": (b"{'a': 1}", "column 2: key must be a string"),
    "trailing comma": (START + b'"z",}', "trailing comma"),
    "two objects": (START + b'"z"} {}', "trailing characters"),
    "duplicate key": (START + b'"z", "chosen": "w"}', 'has the key "chosen" twice'),
    "duplicate key deep inside": (START + b'"z", "metadata": {"a": {"b": 1, "b": 2}}}', 'has the key "b" twice'),
    "NaN": (START + b'"z", "weight": NaN}', "has NaN at column"),
    "Infinity": (START + b'"z", "weight": Infinity}', "has Infinity at column"),
    "minus Infinity": (START + b'"z", "weight": -Infinity}', "has Infinity at column"),
    "infinite by its exponent": (START + b'"z", "weight": 1e999}', "finite number"),
    "NUL byte": (START + b'"\0"}', "has a NUL byte at offset 44"),
    "control character": (START + b'"a\tb"}', "control character"),
    "lone high surrogate": (START + rb'"\ud800"}', "half a surrogate pair"),
    "lone high surrogate before text": (START + rb'"\ud800abcdef"}', "half a surrogate pair"),
    "lone low surrogate": (START + rb'"\udc00"}', "half a surrogate pair"),
    "encoded surrogate": (START + b'"\xed\xa0\x80"}', "is not UTF-8: byte 0xed at offset 44"),
    "latin-1": (START + '"é"}'.encode("latin-1"), "is not UTF-8: byte 0xe9 at offset 44"),
    "deep lists": (b"[" * 1_000_000, "nested more than 200 levels"),
    "deep objects": (START + b'"z", "metadata": ' + b'{"a":' * 1000 + b"1" + b"}" * 1001, "nested more than 200"),
    "number of 5,000 digits": (START + b'"z", "weight": ' + b"1" * 5000 + b"}", "thousands of digits"),
    "number of 4,000 digits": (START + b'"z", "weight": ' + b"1" * 4000 + b"}", "number"),
}


@pytest.mark.parametrize(("line", "words"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_line_that_two_parsers_could_read_differently_is_refused(line: bytes, words: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(line, row_format=None)

    assert words in caught.value.reason


def test_another_format_than_the_files_is_refused() -> None:
    with pytest.raises(RowError, match="is in the format trl_explicit while the file's is openai"):
        parse_row(encode(explicit_row()), row_format="openai")


def test_a_long_value_is_shortened_and_made_printable_in_the_message() -> None:
    with pytest.raises(RowError) as caught:
        parse_row(encode(prompt(USER | {"role": "\x1b[31m" + "r" * 10_000})), row_format=None)

    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
