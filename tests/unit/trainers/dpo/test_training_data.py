"""What a job is told of its rows before the first step."""

from pathlib import Path

from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from schemas.run_record import RunError
from tests.tiny_model import CHATML, SIZES, save_tiny_model
from tests.tiny_runs import make_run, preference_rows, read_events, write_preferences
from trainers.entrypoint import run


def with_token(model: Path, token: str, *, is_padding: bool = False) -> Path:
    """Add it to the tokenizer, as people do, and not to the model."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    if is_padding:
        tokenizer.add_special_tokens({"pad_token": token})
    else:
        tokenizer.add_tokens([token])
    tokenizer.save_pretrained(model)
    return model


def error_of(folder: Path) -> RunError | None:
    outcome = run(str(folder))
    assert outcome is not None
    return outcome.error


def test_a_token_that_the_model_has_no_embedding_for_is_named_with_its_line(tmp_path: Path) -> None:
    model, folder = with_token(save_tiny_model(tmp_path / "model"), "<|moon|>"), tmp_path / "run"
    folder.mkdir()
    rows = preference_rows(5, first=50)
    rows[2]["non_preferred_output"][0]["content"] += "<|moon|>"
    make_run(folder, model, validation_file=write_preferences(folder / "validation.jsonl", rows))
    error = error_of(folder)
    assert error is not None
    assert (error.code, error.param) == ("model_not_usable", "model")
    assert error.message.startswith('validation_file, line 3 (id pair-52): the tokenizer makes "<|moon|>" the id 320,')
    assert "ids 0 to 319" in error.message
    assert "resize_token_embeddings" in error.message


def test_a_padding_token_that_the_model_has_no_embedding_for_is_not_needed(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    Gemma2ForCausalLM(Gemma2Config(vocab_size=320, head_dim=8, **SIZES)).save_pretrained(model)  # trained padded
    make_run(tmp_path / "run", with_token(model, "[PAD]", is_padding=True))
    assert error_of(tmp_path / "run") is None
    assert "padded" in [event.key for event in read_events(tmp_path / "run")]


def test_a_prompts_end_that_the_template_leaves_out_before_an_answer_is_told(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(CHATML.replace("assistant\n'", "assistant\n<think>\n'"))
    make_run(tmp_path / "run", model)
    assert error_of(tmp_path / "run") is None
    (told,) = [event for event in read_events(tmp_path / "run") if event.level == "warn"]
    assert told.key == "prompt_end:training_file"
    assert 'ends a prompt with "<think>\\n", but leaves that out where an answer follows' in told.message
    assert "10 pairs trained without it, lines 1, 2, 3" in told.message


def test_parts_of_answers_that_the_template_leaves_out_are_told(tmp_path: Path) -> None:
    model, folder = save_tiny_model(tmp_path / "model"), tmp_path / "run"
    template = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    (model / "chat_template.jinja").write_text(template)
    folder.mkdir()
    rows = preference_rows(6)
    rows[1]["preferred_output"][0]["content"] = "<think>So it is.</think> Hot."
    make_run(folder, model, training_file=write_preferences(folder / "rows.jsonl", rows))
    assert error_of(folder) is None
    (told,) = [event for event in read_events(folder) if event.level == "warn"]
    assert told.key == "answer_parts:training_file"
    assert 'answers of 1 pair, line 2, such as "<think>So it is.</think>"' in told.message


def test_validation_pairs_that_are_trained_on_are_told(tmp_path: Path) -> None:
    model, folder = save_tiny_model(tmp_path / "model"), tmp_path / "run"
    folder.mkdir()
    rows = preference_rows(8)
    validation = write_preferences(folder / "valid.jsonl", rows[4:])
    make_run(
        folder, model, training_file=write_preferences(folder / "rows.jsonl", rows[:6]), validation_file=validation
    )
    assert error_of(folder) is None
    (told,) = [event for event in read_events(folder) if event.level == "warn"]
    assert "2 pairs of 4 are pairs of the training file, too: lines 1, 2." in told.message


def test_tools_that_the_template_leaves_out_of_prompts_are_told(tmp_path: Path) -> None:
    model, folder = save_tiny_model(tmp_path / "model"), tmp_path / "run"
    folder.mkdir()
    rows = preference_rows(6)
    for row in rows[1:3]:
        row["input"]["tools"] = [{"type": "function", "function": {"name": "weather"}}]
    make_run(folder, model, training_file=write_preferences(folder / "rows.jsonl", rows))
    assert error_of(folder) is None
    (told,) = [event for event in read_events(folder) if event.level == "warn"]
    assert told.key == "prompt_tools:training_file"
    assert 'of the prompts of 2 pairs, lines 2, 3, such as "weather": both sides are trained without' in told.message


def test_pairs_that_all_became_equal_fail_the_job(tmp_path: Path) -> None:
    rows = preference_rows(6)
    for row in rows:
        row["non_preferred_output"] = row["preferred_output"]
    folder = tmp_path / "run"
    folder.mkdir()
    make_run(folder, save_tiny_model(tmp_path / "model"), training_file=write_preferences(folder / "rows.jsonl", rows))
    error = error_of(folder)
    assert error is not None
    assert error.code == "invalid_training_file"
    assert "each of the 6 pairs has the same tokens on both sides" in error.message
    assert "the sides are the same" in error.message
    assert "its files are incomplete" in error.message
