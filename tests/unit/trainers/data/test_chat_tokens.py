"""Tokenisation: the boundary, the end, and what is lost on the way."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from operator import length_hint
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from schemas.preference_rows import FunctionCall, Message, PreferencePair, ToolCall
from tests.tiny_model import CHATML, tiny_tokenizer
from trainers.data import chat_tokens
from trainers.data.chat_tokens import TokenizedPairs, split_at_boundary, tokenize_rows
from trainers.data.preference_dataset import PreferenceRow
from trainers.errors import InvalidTrainingFile, InvalidValidationFile, UnusableModel

TOKENIZER = tiny_tokenizer()
IDS = st.lists(st.integers(0, 3), max_size=8)


def text_pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(prompt, chosen, rejected, tools=None, weight=1.0, row_id=None)


def chat_pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    def said(role: Any, text: str) -> tuple[Message, ...]:
        return (Message(role=role, content=text),)

    sides = said("user", prompt), said("assistant", chosen), said("assistant", rejected)
    return PreferencePair(*sides, tools=None, weight=1.0, row_id="a")


def tokenize(
    *pairs: PreferencePair, max_length: int = 1_000, tokenizer: PreTrainedTokenizerBase = TOKENIZER
) -> TokenizedPairs:
    rows = [PreferenceRow(number, pair) for number, pair in enumerate(pairs, 1)]
    return tokenize_rows(rows, tokenizer, max_length=max_length, error=InvalidTrainingFile)


def templated(template: str) -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@settings(deadline=None)
@given(shared=IDS, prompt_end=IDS, chosen_end=IDS, rejected_end=IDS)
def test_the_prompt_is_the_longest_start_of_all_three(
    shared: list[int], prompt_end: list[int], chosen_end: list[int], rejected_end: list[int]
) -> None:
    texts = shared + prompt_end, shared + chosen_end, shared + rejected_end
    prompt, chosen, rejected = split_at_boundary(*texts)
    assert list(prompt + chosen) == texts[1]
    assert list(prompt + rejected) == texts[2]
    assert list(prompt) == texts[0][: len(prompt)]
    longer = [text[: len(prompt) + 1] for text in texts]
    assert len(prompt) == len(texts[0]) or longer[0] != longer[1] or longer[0] != longer[2]


@settings(deadline=None)
@given(prompt=st.text(min_size=1), chosen=st.text(), rejected=st.text())
def test_any_text_comes_back_whole(prompt: str, chosen: str, rejected: str) -> None:
    (pair,) = tokenize(text_pair(prompt, chosen, rejected)).pairs
    for ids, completion in ((pair.chosen, chosen), (pair.rejected, rejected)):
        whole = TOKENIZER.decode(pair.prompt + ids)
        assert whole == TOKENIZER.decode(TOKENIZER(prompt + completion.removesuffix("<|im_end|>"))["input_ids"]) + (
            "<|im_end|>"
        )


@pytest.mark.parametrize("make", [text_pair, chat_pair])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_rows_are_the_same_however_many_are_tokenised_at_once(
    make: Callable[[str, str, str], PreferencePair], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [make(f"Question {n}?" * n, f"The answer is {n}.", f"I will not say {n}.") for n in range(1, 6)]
    expected = tokenize(*pairs, max_length=40)
    assert expected.prompt_too_long
    assert expected.pairs
    monkeypatch.setattr(chat_tokens, "ROWS_AT_ONCE", at_once)
    assert tokenize(*pairs, max_length=40) == expected


def test_rows_are_read_as_they_are_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_tokens, "ROWS_AT_ONCE", 2)
    waiting = iter([PreferenceRow(line, text_pair("a", "b", "c")) for line in range(1, 5)])
    left: list[int] = []

    class Watched(PreTrainedTokenizerFast):
        def __call__(self, *texts: Any, **settings: Any) -> Any:
            left.append(length_hint(waiting))
            return super().__call__(*texts, **settings)

    watched = Watched(tokenizer_object=TOKENIZER.backend_tokenizer, eos_token="<|im_end|>")
    tokenize_rows(waiting, watched, max_length=100, error=InvalidTrainingFile)
    assert left == [2, 0]


def with_bos() -> PreTrainedTokenizerBase:
    """As Llama's and Gemma's: the tokenizer puts a BOS before a text, and the template before a conversation."""
    tokenizer = tiny_tokenizer()
    bos, bos_id = str(tokenizer.bos_token), int(tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bos_id)])
    tokenizer.chat_template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    return tokenizer


@pytest.mark.parametrize("makes", [[text_pair, chat_pair, text_pair], [chat_pair, text_pair, chat_pair]])
def test_texts_and_conversations_of_one_file_begin_with_one_bos_each(
    makes: list[Callable[[str, str, str], PreferencePair]],
) -> None:
    pairs = [make(f"old {n}", " bread", " lamp") for n, make in enumerate(makes)]
    tokenizer = with_bos()
    kept = tokenize(*pairs, tokenizer=tokenizer).pairs
    assert [tokenizer.decode(pair.prompt) for pair in kept] == [f"<|im_start|>old {n}" for n in range(3)]
    assert [pair.line for pair in kept] == [1, 2, 3]


def test_an_id_is_one_object_however_often_it_stands_in_a_file() -> None:
    """Python keeps those up to 256 by itself."""
    pairs = tokenize(*[text_pair(" river walks", " bread sings", " green lamp")] * 2).pairs
    tokens = [token for pair in pairs for token in pair.prompt + pair.chosen + pair.rejected]
    assert max(tokens) > 256
    assert len({id(token) for token in tokens}) == len(set(tokens))


def test_tokens_that_merge_across_the_boundary_belong_to_the_completion() -> None:
    (pair,) = tokenize(text_pair("the riv", "er", "ets")).pairs
    assert TOKENIZER.decode(pair.prompt) == "the "
    assert TOKENIZER.decode(pair.chosen) == "river<|im_end|>"


def test_a_conversation_is_rendered_by_the_models_template() -> None:
    (pair,) = tokenize(chat_pair("old bread", "sings", "walks")).pairs
    assert TOKENIZER.decode(pair.prompt) == "<|im_start|>user\nold bread<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.decode(pair.chosen) == "sings<|im_end|>\n"
    assert pair.name == "line 1 (id a)"


def test_a_text_that_ends_with_eos_gets_no_second_one() -> None:
    (pair,) = tokenize(text_pair("the", " old<|im_end|>", " old")).pairs
    assert pair.chosen == pair.rejected


def test_long_prompts_are_dropped_and_long_answers_cut_and_both_are_reported() -> None:
    short, long = "a b", "a b c d e f g h"
    kept = tokenize(text_pair(long, short, short + "c"), text_pair(short, long, short), max_length=8)
    assert kept.prompt_too_long == [1]
    assert [pair.line for pair in kept.pairs] == [2]
    assert kept.cut_completions == 1
    assert len(kept.pairs[0].prompt + kept.pairs[0].chosen) == 8


def test_a_pair_that_a_cut_made_equal_is_reported() -> None:
    kept = tokenize(text_pair("a b", " c d e f", " c d e g"), max_length=6)
    assert kept.became_equal == [1]
    assert kept.cut_completions == 2


REFUSING = "{% if messages[0].role == 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}"


def test_a_conversation_that_the_template_refuses_names_its_file_and_line() -> None:
    row = PreferenceRow(17, chat_pair("a", "b", "c"))
    told = (
        r"^validation_file, line 17: .* roles must alternate\. Give the messages as it wants them, or .* renders them$"
    )
    with pytest.raises(InvalidValidationFile, match=told):
        tokenize_rows([row], templated(REFUSING), max_length=100, error=InvalidValidationFile)


def test_all_rows_that_the_template_refuses_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_tokens, "ROWS_AT_ONCE", 4)
    pairs = [chat_pair("a", "b", "c") if line % 2 else text_pair("a", "b", "c") for line in range(1, 25)]
    with pytest.raises(InvalidTrainingFile) as error:
        tokenize(*pairs, tokenizer=templated(REFUSING))
    assert error.value.message.startswith("training_file, line 1: the model's chat template cannot render")
    assert error.value.message.endswith(". There are 12 such rows: lines 1, 3, 5, 7, 9, 11, 13, 15, 17, 19 and 2 more")


@pytest.mark.parametrize("call", ["strftime_now('%d %b %Y')", 'strftime_now( "%d %b %Y" )'])
def test_a_template_that_writes_the_date_writes_the_jobs(call: str) -> None:
    dated = tiny_tokenizer()
    dated.chat_template = "{% if strftime_now is defined %}{{ " + call + " }}{% endif %}" + str(dated.chat_template)
    row = PreferenceRow(1, chat_pair("a", "b", "c"))
    for today in (datetime(2024, 2, 29, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)):
        [pair] = tokenize_rows([row], dated, max_length=100, error=InvalidTrainingFile, today=today).pairs
        assert str(dated.decode(pair.prompt)).startswith(f"{today:%d %b %Y}<|im_start|>user")


def test_a_conversation_needs_a_template() -> None:
    plain = tiny_tokenizer()
    plain.chat_template = None
    with pytest.raises(UnusableModel, match="no chat template"):
        tokenize_rows([PreferenceRow(1, chat_pair("a", "b", "c"))], plain, max_length=9, error=InvalidTrainingFile)


CALLS = "{% for message in messages %}{{ message.role }}:{% for call in message.tool_calls or [] %}"


@pytest.mark.parametrize(
    "told",
    [
        pytest.param("{{ call.function.arguments | tojson }}", id="from an object, as Qwen's and Llama's"),
        pytest.param("{{ call.function.arguments + '' }}", id="put in as text, as DeepSeek's"),
    ],
)
def test_a_tool_calls_arguments_are_written_as_json_once(told: str) -> None:
    named = "{{ call.function.name }} " + told
    tokenizer = templated(f"{CALLS}{named}{{% endfor %}}{{% endfor %}}{{{{ 'assistant:' if add_generation_prompt }}}}")

    def called(city: str) -> tuple[Message, ...]:
        call = ToolCall(id="call_1", function=FunctionCall(name="weather", arguments=f'{{"city": "{city}"}}'))
        return (Message(role="assistant", tool_calls=(call,)),)

    asked = (Message(role="user", content="?"),)
    pair = PreferencePair(asked, called("Zürich"), called("Ulm"), tools=None, weight=1.0, row_id=None)
    (tokens,) = tokenize(pair, tokenizer=tokenizer).pairs
    assert tokenizer.decode(tokens.prompt + tokens.chosen) == 'user:assistant:weather {"city": "Zürich"}'
    assert tokenizer.decode(tokens.prompt + tokens.rejected) == 'user:assistant:weather {"city": "Ulm"}'


def test_what_stands_at_a_prompts_end_alone_is_reported() -> None:
    tokenizer = tiny_tokenizer()
    thinking = templated(str(tokenizer.chat_template).replace("assistant\n'", "assistant\n<think>\n'"))
    pairs = chat_pair("old bread", "sings", "walks"), chat_pair("the lamp", "<think>\nsings", "<think>\nwalks")
    kept = tokenize(*pairs, tokenizer=thinking)
    assert (kept.prompt_lost_end, kept.lost_end) == ([1], "<think>\n")
    assert tokenizer.decode(kept.pairs[0].prompt).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(kept.pairs[1].prompt).endswith("<|im_start|>assistant\n<think>\n")


def test_tokens_that_merge_at_a_prompts_end_lose_nothing() -> None:
    assert tokenize(text_pair("the riv", "er", "ets"), chat_pair("a", "b", "c")).prompt_lost_end == []


TRIMMED = CHATML.replace("message['content']", "message['content'] | trim")
"""As Llama 3's and Gemma's: a message is its content, and a tool call nothing."""
WITHOUT_THOUGHTS = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
"""As DeepSeek-R1's."""
WITH_CALLS = (
    f"{CALLS}{{{{ call.function.name }}}}{{% endfor %}}{{{{ message.content | trim }}}}\n{{% endfor %}}"
    "{{ 'assistant:<think>\n' if add_generation_prompt }}"
)


def calling(name: str, content: str | None = None) -> tuple[Message, ...]:
    call = ToolCall(id="call_1", function=FunctionCall(name=name, arguments="{}"))
    return (Message(role="assistant", content=content, tool_calls=(call,)),)


def answering(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def answered(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> PreferencePair:
    asked = (Message(role="user", content="What does call_weather tell of the river?"),)
    tools = ({"type": "function", "function": {"name": "weather"}},)
    return PreferencePair(asked, chosen, rejected, tools=tools, weight=1.0, row_id=None)


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        pytest.param(
            answered(calling("weather"), answering("I cannot.")), 'the preferred answer: "weather"', id="call"
        ),
        pytest.param(
            answered(answering("Hot."), calling("weather", "")), 'the non-preferred answer: "weather"', id="rejected"
        ),
    ],
)
def test_an_answer_that_the_template_leaves_out_is_an_error(pair: PreferencePair, told: str) -> None:
    with pytest.raises(InvalidTrainingFile, match=f"line 1: .* leaves out all of {told}.*renders tool calls"):
        tokenize(pair, tokenizer=templated(TRIMMED))


@pytest.mark.parametrize("content", [None, ""])
def test_an_answer_of_a_call_alone_is_told_where_the_template_joins_content_to_its_text(content: str | None) -> None:
    pair = answered(calling("weather", content), answering("I cannot."))
    with pytest.raises(InvalidTrainingFile, match=r'line 1: .* leaves out all of the preferred answer: "weather"'):
        tokenize(pair, tokenizer=templated(CHATML))


def test_a_call_without_content_is_written_by_a_template_that_joins_content_to_the_call() -> None:
    """As DeepSeek-V3's."""
    joined = f"{CALLS}{{{{ message['content'] + call.function.name }}}}{{% endfor %}}{{% endfor %}}"
    tokenizer = templated(joined + "{{ 'assistant:' if add_generation_prompt }}")
    (tokens,) = tokenize(answered(calling("weather"), calling("river")), tokenizer=tokenizer).pairs
    assert tokenizer.decode(tokens.prompt + tokens.chosen) == "user:assistant:weather"


def test_an_answer_of_thoughts_alone_that_the_template_leaves_out_is_an_error() -> None:
    pair = answered(answering("<think>Hot, I think.</think>"), answering("Cold."))
    with pytest.raises(InvalidTrainingFile, match='all of the preferred answer: "<think>Hot'):
        tokenize(pair, tokenizer=templated(WITHOUT_THOUGHTS))


def test_parts_of_answers_that_the_template_leaves_out_are_reported() -> None:
    kept = tokenize(
        answered(answering("Hot."), answering("Cold.")),
        answered(answering("<think>\nSo it is.\n</think>\n\nHot."), answering("<think>No.</think> Cold.")),
        tokenizer=templated(WITHOUT_THOUGHTS),
    )
    assert (kept.answer_lost_parts, kept.lost_parts) == ([2], "<think> So it is. </think>")
    called = answered(calling("weather", "I will look."), answering("Cold."))
    kept = tokenize(called, tokenizer=templated(TRIMMED))
    assert (kept.answer_lost_parts, kept.lost_parts) == ([1], "weather")


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(answering("  Hot,\n\n as ever. "), id="text with whitespace around it"),
        pytest.param(answering("<think>\nHot."), id="what the prompt ends with"),
        pytest.param(answering("<thing> hot"), id="half of what the prompt ends with"),
        pytest.param(calling("weather"), id="a call"),
        pytest.param(calling("weather", "I will look."), id="text and a call"),
    ],
)
@pytest.mark.parametrize("content", ["message.content | trim", "(message.content or '').split() | join(' ')"])
def test_an_answer_that_the_template_writes_is_not_reported(content: str, chosen: tuple[Message, ...]) -> None:
    tokenizer = templated(WITH_CALLS.replace("message.content | trim", content))
    assert tokenize(answered(chosen, answering("Cold.")), tokenizer=tokenizer).answer_lost_parts == []


def test_a_tools_answer_that_the_template_writes_as_json_is_not_reported() -> None:
    found = Message(role="tool", tool_call_id="call_1", content='{"weather":\n "hot"}')
    pair = answered((*calling("weather"), found, *answering("Hot.")), answering("Cold."))
    tokenizer = templated(WITH_CALLS.replace("message.content | trim", "(message.content or '') | tojson"))
    assert tokenize(pair, tokenizer=tokenizer).answer_lost_parts == []


WITH_TOOLS = "{% for tool in tools or [] %}{{ tool.function | tojson }}\n{% endfor %}"
WITHOUT_TOOL_ANSWERS = "{% set messages = messages | rejectattr('role', 'equalto', 'tool') | list %}"


def with_tool_use(*, tools: bool = True, calls: bool = True) -> PreferencePair:
    pair = answered(answering("Hot."), answering("Cold."))
    found = Message(role="tool", tool_call_id="call_1", content="river")
    used = (*calling("weather"), found) if calls else ()
    return replace(pair, prompt=(*pair.prompt, *used), tools=pair.tools if tools else None)


@pytest.mark.parametrize(
    ("pair", "template", "lost"),
    [
        pytest.param(with_tool_use(calls=False), CHATML, "weather", id="a tool, whose name the user says"),
        pytest.param(with_tool_use(), WITH_TOOLS + CHATML, "weather", id="a call of a tool that is written"),
        pytest.param(with_tool_use(tools=False), WITHOUT_TOOL_ANSWERS + WITH_CALLS, "river", id="a tool's answer"),
        pytest.param(with_tool_use(), WITHOUT_TOOL_ANSWERS + CHATML, "weather river", id="all"),
    ],
)
def test_tools_and_their_use_that_the_template_leaves_out_of_a_prompt_are_reported(
    pair: PreferencePair, template: str, lost: str
) -> None:
    kept = tokenize(with_tool_use(tools=False, calls=False), pair, pair, tokenizer=templated(template))
    assert (kept.prompt_lost_tools, kept.lost_tools) == ([2, 3], lost)


@pytest.mark.parametrize("refused", ["~tool-0~", "~tool-1~"], ids=["a tool's name", "a call's name"])
def test_tools_and_their_use_that_the_template_writes_are_not_reported(refused: str) -> None:
    """Nor where it knows names, and refuses those with marks."""
    knowing = f"{{% if '{refused}' in (tools | tojson) or '{refused}' in (messages | tojson) %}}"
    knowing += "{{ raise_exception('unknown') }}{% endif %}"
    for template in (WITH_TOOLS + WITH_CALLS, knowing + CHATML):
        assert tokenize(with_tool_use(), tokenizer=templated(template)).prompt_lost_tools == []


def test_a_prompt_without_tools_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[object] = []
    apply_template = PreTrainedTokenizerFast.apply_chat_template

    def watched(tokenizer: Any, messages: Any, **settings: Any) -> Any:
        rendered.append(messages)
        return apply_template(tokenizer, messages, **settings)

    monkeypatch.setattr(PreTrainedTokenizerFast, "apply_chat_template", watched)
    tokenize(chat_pair("a", "b", "c"))
    assert len(rendered) == 3
