"""A whole run, through its folder: what a service finds there."""

import csv
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from schemas.run_layout import (
    ADAPTER,
    ADAPTER_ARCHIVE,
    CHECKPOINTS,
    EVENTS,
    METRICS_CSV,
    OUTCOME,
    SFT_CHECKPOINTS,
    SPEC,
)
from schemas.run_record import Outcome, RunEvent
from schemas.run_spec import AdapterSource, RunSpec, SftParameters
from tests.tiny_model import tiny_tokenizer
from tests.tiny_runs import DPO, LORA, losses, make_run, preference_rows, read_events, write_preferences
from trainers.checkpoints import stored_file
from trainers.dpo import optimizer_step, prepare, step
from trainers.dpo.step import accumulate_gradients
from trainers.entrypoint import run
from trainers.errors import RunStopped

pytestmark = pytest.mark.slow


def test_a_run_leaves_everything_its_outcome_names(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "run"
    validation = write_preferences(tmp_path / "validation.jsonl", preference_rows(4, first=50))
    make_run(folder, tiny_model, validation_file=validation.model_copy(update={"uri": str(tmp_path / validation.uri)}))
    outcome = run(str(folder))
    assert outcome == Outcome.model_validate_json((folder / OUTCOME).read_bytes())
    assert outcome is not None
    assert outcome.status == "succeeded"
    assert outcome.steps == 6
    assert outcome.peak_memory_bytes > 2**20
    assert outcome.adapter is not None
    archive = (folder / ADAPTER_ARCHIVE).read_bytes()
    assert outcome.adapter.archive == stored_file(ADAPTER_ARCHIVE, archive)
    weights = (folder / outcome.adapter.folder / "adapter_model.safetensors").read_bytes()
    assert stored_file("", weights).sha256 == outcome.adapter.sha256
    with (folder / METRICS_CSV).open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["step"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    assert [bool(row["valid_kl"]) for row in table] == [False, False, False, False, False, True]


def test_the_archive_loads_with_stock_peft_and_raises_the_margin(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder, tiny_model)
    run(str(folder))
    with tarfile.open(folder / ADAPTER_ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.0 to 3.11.3 have none
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked"
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(base, unpacked)
    assert AutoTokenizer.from_pretrained(unpacked).chat_template
    assert any(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)
    passport = json.loads((unpacked / "passport.json").read_text())
    spec = RunSpec.model_validate_json((folder / SPEC).read_bytes())
    assert passport["training_file"] == {"file_id": "file-training", "sha256": spec.training_file.sha256}
    assert passport["base_weights"][0]["path"] == "model.safetensors"
    assert "ft:tiny:default:test:1" in (unpacked / "README.md").read_text()
    margins = [event.step_metrics.rewards_margin for event in read_events(folder) if event.step_metrics]
    assert margins[0] == 0
    assert margins[-1] > 0.05


def test_events_tell_the_story_in_order_and_chunks_have_no_gap(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder, tiny_model)
    run(str(folder))
    keys = [event.key for event in read_events(folder)]
    steps = [f"step:{step}" for step in range(1, 7)]
    assert keys == ["started", *steps[:3], "checkpoint:3", *steps[3:], "checkpoint:6", "finished"]
    chunks = sorted(path.name for path in (folder / EVENTS).iterdir())
    assert chunks == [f"{number:08d}.jsonl" for number in range(1, len(chunks) + 1)]
    assert read_events(folder)[0].message == (
        "Training on 10 pairs for 6 steps: tiny, 4,096 LoRA parameters, reference: the base model"
    )


def test_a_run_with_an_outcome_is_not_made_again(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder, tiny_model)
    first = run(str(folder))
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(str(folder)) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written


def at_step(step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something while the run makes its gradients of `step`."""
    made: list[int] = []

    def accumulate(*arguments: Any, **options: Any) -> torch.Tensor:
        made.append(1)
        if len(made) == step:
            act()
        return accumulate_gradients(*arguments, **options)

    monkeypatch.setattr(optimizer_step, "accumulate_gradients", accumulate)


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def lose_the_node() -> None:
    raise OSError("the node went away")


def find_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a run by itself would pass over a single pair at a time."""
    monkeypatch.setitem(prepare.TOKENS_A_PASS, "cpu", 32)


@pytest.mark.parametrize("stopped_after", [2, 4], ids=["in the first epoch", "in the second epoch"])
def test_a_resumed_run_is_the_unbroken_one_to_the_last_bit(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int
) -> None:
    dropout = LORA.model_copy(update={"dropout": 0.2})
    unbroken, first, second = tmp_path / "unbroken", tmp_path / "first", tmp_path / "second"
    make_run(unbroken, tiny_model, lora=dropout)
    run(str(unbroken))
    make_run(first, tiny_model, lora=dropout)
    with monkeypatch.context() as patched:
        at_step(stopped_after, send_sigterm, patched)
        with pytest.raises(RunStopped, match=f"after step {stopped_after} of 6"):
            run(str(first))
    assert not (first / OUTCOME).exists()
    make_run(second, tiny_model, lora=dropout, resume_from=(str(first),))
    find_less_memory(monkeypatch)
    run(str(second))
    assert losses(first) | losses(second) == losses(unbroken)
    assert "resumed:ftjob-tiny-second:" in " ".join(event.key for event in read_events(second))
    ours, theirs = (load_file(folder / ADAPTER / "adapter_model.safetensors") for folder in (second, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with (second / METRICS_CSV).open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2", "3", "4", "5", "6"]


def test_a_run_killed_in_its_own_folder_goes_on_there(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, unbroken = tmp_path / "run", tmp_path / "unbroken"
    make_run(unbroken, tiny_model)
    run(str(unbroken))
    make_run(folder, tiny_model, checkpoint_every_steps=2)
    with monkeypatch.context() as patched:
        at_step(5, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(folder))
    flipped = folder / CHECKPOINTS / "step-00000004" / "optimizer.safetensors"
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    run(str(folder))
    assert "resumed:ftjob-tiny-run:3" in [event.key for event in read_events(folder)]
    assert losses(folder) == losses(unbroken)


@pytest.mark.parametrize("changes", [{}, {"reference": "sft", "sft": SftParameters(n_epochs=2, learning_rate=5e-3)}])
def test_slow_steps_are_kept_though_no_checkpoint_is_planned(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr("trainers.checkpoints.LONGEST_WITHOUT_S", -1.0)
    folder = tmp_path / "run"
    make_run(folder, tiny_model, **changes)
    with monkeypatch.context() as patched:
        at_step(2, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(folder))
    run(str(folder))
    assert "resumed:ftjob-tiny-run:1" in [event.key for event in read_events(folder)]
    if changes:
        assert len(list((folder / SFT_CHECKPOINTS).iterdir())) == 2


def adapter_of(folder: Path) -> AdapterSource:
    uri = folder / ADAPTER
    return AdapterSource(uri=str(uri), sha256=stored_file("", (uri / "adapter_model.safetensors").read_bytes()).sha256)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_training_goes_on_from_an_ft_model_against_a_frozen_copy_of_it(
    tmp_path: Path, tiny_model: Path, dropout: float
) -> None:
    make_run(tmp_path / "first", tiny_model)
    run(str(tmp_path / "first"))
    initial = adapter_of(tmp_path / "first")
    lora = LORA.model_copy(update={"dropout": dropout})
    make_run(tmp_path / "second", tiny_model, initial_adapter=initial, lora=lora)
    outcome = run(str(tmp_path / "second"))
    assert outcome is not None
    assert outcome.error is None
    events = read_events(tmp_path / "second")
    assert "a frozen copy of the initial adapter" in events[0].message
    if not dropout:
        assert events[1].step_metrics is not None
        assert events[1].step_metrics.rewards_margin == 0
    weights = load_file(tmp_path / "second" / ADAPTER / "adapter_model.safetensors")
    before = load_file(tmp_path / "first" / ADAPTER / "adapter_model.safetensors")
    assert weights.keys() == before.keys()
    assert not all(torch.equal(weights[name], before[name]) for name in weights)


def test_against_the_base_an_ft_model_starts_with_a_margin(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "first", tiny_model)
    run(str(tmp_path / "first"))
    make_run(tmp_path / "second", tiny_model, initial_adapter=adapter_of(tmp_path / "first"), reference="base")
    run(str(tmp_path / "second"))
    events = read_events(tmp_path / "second")
    assert events[1].step_metrics is not None
    assert events[1].step_metrics.rewards_margin > 0.05


def test_an_initial_adapters_shape_goes_before_the_jobs_and_that_is_told(tmp_path: Path, tiny_model: Path) -> None:
    named = {"target_modules": ("v_proj", "q_proj"), "use_rslora": True}
    make_run(tmp_path / "first", tiny_model, lora=LORA.model_copy(update=named))
    run(str(tmp_path / "first"))
    lora = LORA.model_copy(update={"r": 16, "target_modules": ("q_proj",), "dropout": 0.1})
    make_run(tmp_path / "second", tiny_model, initial_adapter=adapter_of(tmp_path / "first"), lora=lora)
    run(str(tmp_path / "second"))
    warnings = [event.message for event in read_events(tmp_path / "second") if event.level == "warn"]
    assert warnings == [
        "The initial adapter keeps its own shape, which is not the job's: r is 4, not 16; use_rslora is True, not "
        "False; target_modules is q_proj, v_proj, not q_proj"
    ]
    delivered = tmp_path / "second" / ADAPTER
    made_of = json.loads((delivered / "passport.json").read_text())
    assert made_of["lora"] == LORA.model_dump() | {
        "target_modules": ["q_proj", "v_proj"],
        "use_rslora": True,
        "dropout": 0.1,
    }
    assert "| LoRA | r 4, alpha 8, rsLoRA |" in (delivered / "README.md").read_text()


def test_an_initial_adapter_of_the_jobs_own_shape_is_no_surprise(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "first", tiny_model)
    run(str(tmp_path / "first"))
    make_run(tmp_path / "second", tiny_model, initial_adapter=adapter_of(tmp_path / "first"))
    run(str(tmp_path / "second"))
    assert [event.message for event in read_events(tmp_path / "second") if event.level == "warn"] == []


def failure(folder: Path) -> tuple[str, str | None, str]:
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.status == "failed"
    assert outcome.error is not None
    return outcome.error.code, outcome.error.param, outcome.error.message


def test_a_changed_initial_adapter_fails_the_run(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "first", tiny_model)
    run(str(tmp_path / "first"))
    source = adapter_of(tmp_path / "first")
    path = Path(source.uri) / "adapter_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    make_run(tmp_path / "second", tiny_model, initial_adapter=source)
    code, param, message = failure(tmp_path / "second")
    assert (code, param) == ("adapter_not_usable", "model")
    assert source.sha256 in message


def events_of_a_run_that_drops_a_pair(folder: Path, model: Path) -> list[RunEvent]:
    rows = preference_rows(5)
    rows[2]["input"]["messages"][0]["content"] = "the old river " * 60
    file = write_preferences(folder / "long.jsonl", rows)
    file = file.model_copy(update={"uri": str(folder / "long.jsonl")})
    make_run(folder / "run", model, training_file=file)
    run(str(folder / "run"))
    return read_events(folder / "run")


def test_prompts_that_fill_max_length_are_dropped_and_reported(tmp_path: Path, tiny_model: Path) -> None:
    events = events_of_a_run_that_drops_a_pair(tmp_path, tiny_model)
    warnings = [event.message for event in events if event.level == "warn"]
    assert warnings == ["training_file: dropped 1 pair whose prompt alone has 128 tokens (max_length) or more: line 3"]


def test_what_is_told_is_stamped_in_the_order_of_telling(tmp_path: Path, tiny_model: Path) -> None:
    events = events_of_a_run_that_drops_a_pair(tmp_path, tiny_model)
    assert [event.key for event in events[:2]] == ["started", "dropped:training_file"]
    stamps = [event.created_at for event in events]
    assert stamps == sorted(stamps)


def test_no_usable_pair_fails_the_run(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "run", tiny_model, dpo=DPO.model_copy(update={"max_length": 3}))
    code, param, message = failure(tmp_path / "run")
    assert (code, param) == ("invalid_training_file", "training_file")
    assert "none of the 10 pairs" in message


def test_an_unknown_target_module_is_told_with_those_there_are(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "run", tiny_model, lora=LORA.model_copy(update={"target_modules": ("q_proj", "query")}))
    code, param, message = failure(tmp_path / "run")
    assert (code, param) == ("invalid_lora_target_modules", "method.dpo.lora.target_modules")
    assert '"query"' in message
    assert "down_proj, gate_proj, k_proj" in message


def test_a_loss_that_is_not_finite_names_step_and_rows_and_keeps_the_checkpoints(
    tmp_path: Path, tiny_model: Path
) -> None:
    hot = DPO.model_copy(update={"learning_rate": 1e30, "lr_scheduler": "constant", "max_grad_norm": 1e30})
    make_run(tmp_path / "run", tiny_model, dpo=hot, checkpoint_every_steps=1)
    code, param, message = failure(tmp_path / "run")
    assert (code, param) == ("non_finite_loss", None)
    assert "at step 2; its pairs: line " in message
    assert "what was saved before this step is kept" in message
    assert "(id pair-" in message
    assert (tmp_path / "run" / CHECKPOINTS / "step-00000001" / "manifest.json").exists()


@pytest.mark.parametrize(
    "numbers", [{"loss_type": "ipo", "beta": 1e-30}, {"loss_type": "discopop", "discopop_tau": 1e-300}]
)
def test_a_loss_that_overflows_at_once_is_not_blamed_on_reference_or_learning_rate(
    tmp_path: Path, tiny_model: Path, numbers: dict[str, Any]
) -> None:
    make_run(tmp_path / "run", tiny_model, dpo=DPO.model_copy(update=numbers))
    code, _, message = failure(tmp_path / "run")
    assert code == "non_finite_loss"
    assert "at step 1; its pairs: line " in message
    assert "look at beta and the loss's other numbers" in message
    assert "is kept" not in message


def test_a_wrong_reference_fails_the_run_before_anything_is_trained(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = step.reference_log_probs
    monkeypatch.setattr(step, "reference_log_probs", lambda *arguments: honest(*arguments) * 1.01)
    make_run(tmp_path / "run", tiny_model)
    code, _, message = failure(tmp_path / "run")
    assert code == "reference_contract_broken"
    assert "the margin 0" in message


def test_half_precision_trains_too(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "run", tiny_model, precision="bf16")
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is None
    margins = [event.step_metrics.rewards_margin for event in read_events(tmp_path / "run") if event.step_metrics]
    assert margins[0] == 0
    assert margins[-1] > 0.05


def test_a_model_the_packed_layout_cannot_serve_trains_on_padded_rows(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    config = Gemma2Config(vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.2, **sizes)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    tokenizer.save_pretrained(tmp_path / "gemma")
    make_run(tmp_path / "run", tmp_path / "gemma")
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is None
    told = {event.key: event.message for event in read_events(tmp_path / "run")}
    assert "soft caps" in told["padded"]


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    make_run(tmp_path / "run", tmp_path / "nowhere")
    code, param, message = failure(tmp_path / "run")
    assert (code, param) == ("model_not_usable", "model")
    assert message.startswith(f"nothing lies at {tmp_path / 'nowhere'}; mend its uri in the registry (models file)")


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_missing_file_is_told_before_the_model_is_loaded(
    tmp_path: Path, param: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_run(tmp_path / "run", tmp_path / "nowhere")
    gone = spec.training_file.model_copy(update={"uri": "gone.jsonl"})
    make_run(tmp_path / "run", tmp_path / "nowhere", **{param: gone})
    code, told_param, message = failure(tmp_path / "run")
    assert (code, told_param) == ("file_not_found", param)
    assert message == (
        f"The {param.replace('_', ' ')} {gone.file_id} no longer exists: it was deleted or has expired; "
        "upload it again and create a new job."
    )
    [logged] = [record for record in caplog.records if record.getMessage() == "file_not_found"]
    assert vars(logged)["fields"] == {
        "param": param,
        "place": str(tmp_path / "run" / "gone.jsonl"),
        "remedy": f"in a run made by hand, correct {param}.uri in its spec.json",
    }


def test_a_file_that_changed_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "run", tiny_model)
    write_preferences(tmp_path / "run" / "training.jsonl", preference_rows(3))
    code, param, message = failure(tmp_path / "run")
    assert (code, param) == ("invalid_training_file", "training_file")
    assert "upload it again" in message
