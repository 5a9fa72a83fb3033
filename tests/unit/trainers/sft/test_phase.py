"""Runs whose reference is estimated first: what is told, what is frozen, and that killing them changes no number."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from schemas.run_layout import ADAPTER, CHECKPOINTS, METRICS_CSV, SFT_CHECKPOINTS
from schemas.run_spec import SftParameters
from tests.tiny_model import tiny_tokenizer
from tests.tiny_runs import DPO, LORA, losses, make_run, read_events
from tests.unit.trainers.test_entrypoint import (
    adapter_of,
    at_step,
    failure,
    find_less_memory,
    lose_the_node,
    send_sigterm,
)
from trainers.entrypoint import run
from trainers.errors import RunStopped
from trainers.sft import optimizer_step as sft_step
from trainers.sft.step import accumulate_gradients

pytestmark = pytest.mark.slow

SFT: dict[str, Any] = {"reference": "sft", "sft": SftParameters(n_epochs=2, learning_rate=1e-2)}


def trained(folder: Path, model: Path, **changes: Any) -> Path:
    make_run(folder, model, **{**SFT, **changes})
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is None, outcome.error
    return folder


def sft_losses(folder: Path) -> dict[int, float]:
    told: dict[int, float] = {}
    for event in read_events(folder):
        if event.sft_metrics is not None:
            told.setdefault(event.sft_metrics.step, event.sft_metrics.loss)
    return told


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER / "adapter_model.safetensors")


def at_sft_step(step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[None] = []

    def accumulate(*arguments: Any, **options: Any) -> torch.Tensor:
        made.append(None)
        if len(made) == step:
            act()
        return accumulate_gradients(*arguments, **options)

    monkeypatch.setattr(sft_step, "accumulate_gradients", accumulate)


def test_the_phase_tells_its_steps_and_dpo_counts_its_own_from_one(tmp_path: Path, tiny_model: Path) -> None:
    folder = trained(tmp_path / "run", tiny_model)
    events = read_events(folder)
    keys = [event.key for event in events if not event.key.startswith("checkpoint")]
    phase = [f"sft:{step}" for step in range(1, 7)]
    assert keys == ["started", *phase, "sft:finished", *(f"step:{step}" for step in range(1, 7)), "finished"]
    assert "reference: this model after SFT on the preferred completions" in events[0].message
    assert events[1].message.startswith("SFT step 1/6: loss ")
    assert events[7].message.startswith("SFT finished after 6 steps, loss ")
    told = sft_losses(folder)
    assert told[6] < told[1] - 0.5
    with (folder / METRICS_CSV).open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2", "3", "4", "5", "6"]


def test_dpo_starts_at_the_reference_that_sft_left_and_moves_from_it(tmp_path: Path, tiny_model: Path) -> None:
    folder = trained(tmp_path / "run", tiny_model)
    steps = [event.step_metrics for event in read_events(folder) if event.step_metrics]
    assert steps[0].rewards_margin == 0
    assert steps[-1].rewards_margin > 0.05
    plain = trained(tmp_path / "plain", tiny_model, reference="initial", sft=None)
    unlearned = next(event.step_metrics for event in read_events(plain) if event.step_metrics)
    assert steps[0].logps_chosen > unlearned.logps_chosen + 1.0
    frozen = load_file(folder / SFT_CHECKPOINTS / "step-00000006" / ADAPTER / "adapter_model.safetensors")
    kept = load_file(folder / CHECKPOINTS / "step-00000006" / "reference_adapter.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in frozen.items())
    assert not all(torch.equal(weights(folder)[name], tensor) for name, tensor in frozen.items())


def test_tokens_count_on_through_both_phases_and_the_end_is_estimated(tmp_path: Path, tiny_model: Path) -> None:
    events = read_events(trained(tmp_path / "run", tiny_model))
    phase = [event.sft_metrics for event in events if event.sft_metrics]
    steps = [event.step_metrics for event in events if event.step_metrics]
    counts = [metrics.trained_tokens for metrics in (*phase, *steps)]
    assert counts == sorted(counts)
    assert counts[0] > 0
    left = [metrics.seconds_left for metrics in phase]
    assert left[0] > 0
    assert left[-1] > 0


def test_the_card_and_the_passport_say_that_the_adapter_holds_both_phases(tmp_path: Path, tiny_model: Path) -> None:
    folder = trained(tmp_path / "run", tiny_model)
    card = (folder / ADAPTER / "README.md").read_text()
    assert "maximum likelihood on the preferred completions first, 2 epochs at the learning rate 0.01" in card
    assert "this adapter holds both" in card
    passport = json.loads((folder / ADAPTER / "passport.json").read_text())
    assert (passport["reference"], passport["sft"]) == ("sft", {"n_epochs": 2, "learning_rate": 0.01})


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_ft_model_is_estimated_from_where_it_stands(tmp_path: Path, tiny_model: Path, dropout: float) -> None:
    first = trained(tmp_path / "first", tiny_model)
    lora = LORA.model_copy(update={"dropout": dropout})
    second = trained(tmp_path / "second", tiny_model, initial_adapter=adapter_of(first), lora=lora)
    steps = [event.step_metrics for event in read_events(second) if event.step_metrics]
    if not dropout:
        assert steps[0].rewards_margin == 0
        assert sft_losses(second)[1] < sft_losses(first)[1]


@pytest.mark.parametrize("stopped_after", [1, 4, 6], ids=["its first step", "a later one", "its last step"])
def test_stopping_inside_the_phase_and_resuming_changes_no_number(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int
) -> None:
    changes = {"lora": LORA.model_copy(update={"dropout": 0.2})}
    unbroken = trained(tmp_path / "unbroken", tiny_model, **changes)
    make_run(tmp_path / "killed", tiny_model, **SFT, **changes)
    with monkeypatch.context() as patched:
        at_sft_step(stopped_after, send_sigterm, patched)
        with pytest.raises(RunStopped, match=f"after SFT step {stopped_after} of 6"):
            run(str(tmp_path / "killed"))
    find_less_memory(monkeypatch)
    resumed = trained(tmp_path / "resumed", tiny_model, resume_from=(str(tmp_path / "killed"),), **changes)
    assert len(sft_losses(resumed)) == 6 - stopped_after
    assert sft_losses(tmp_path / "killed") | sft_losses(resumed) == sft_losses(unbroken)
    assert losses(resumed) == losses(unbroken)
    assert tokens(resumed) == tokens(unbroken)
    assert all(torch.equal(weights(unbroken)[name], tensor) for name, tensor in weights(resumed).items())


def tokens(folder: Path) -> list[int]:
    return [event.step_metrics.trained_tokens for event in read_events(folder) if event.step_metrics]


@pytest.mark.parametrize("lost_at", [1, 3, 5], ids=["before any checkpoint of DPO", "first epoch", "second epoch"])
def test_losing_a_run_inside_dpo_changes_no_number(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, lost_at: int
) -> None:
    unbroken = trained(tmp_path / "unbroken", tiny_model)
    make_run(tmp_path / "killed", tiny_model, checkpoint_every_steps=2, **SFT)
    with monkeypatch.context() as patched:
        at_step(lost_at, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(tmp_path / "killed"))
    resumed = trained(tmp_path / "resumed", tiny_model, resume_from=(str(tmp_path / "killed"),))
    assert sft_losses(resumed) == {}, "the phase is not made again"
    assert losses(tmp_path / "killed") | losses(resumed) == losses(unbroken)
    assert all(torch.equal(weights(unbroken)[name], tensor) for name, tensor in weights(resumed).items())


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_rslora": True}], ids=["DoRA", "rsLoRA"])
def test_other_adapters_are_frozen_and_come_back_from_a_checkpoint(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, bool]
) -> None:
    lora = LORA.model_copy(update=changes)
    unbroken = trained(tmp_path / "unbroken", tiny_model, lora=lora)
    steps = [event.step_metrics for event in read_events(unbroken) if event.step_metrics]
    assert steps[0].rewards_margin == pytest.approx(0, abs=1e-6)
    make_run(tmp_path / "run", tiny_model, lora=lora, **SFT)
    with monkeypatch.context() as patched:
        at_step(4, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(tmp_path / "run"))
    run(str(tmp_path / "run"))
    assert losses(tmp_path / "run") == losses(unbroken)


def test_losing_a_run_before_the_phases_first_checkpoint_begins_again(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trained(tmp_path / "unbroken", tiny_model)
    make_run(tmp_path / "run", tiny_model, **SFT)
    with monkeypatch.context() as patched:
        at_sft_step(3, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(tmp_path / "run"))
    run(str(tmp_path / "run"))
    assert sft_losses(tmp_path / "run") == sft_losses(unbroken)
    assert losses(tmp_path / "run") == losses(unbroken)


def test_two_estimated_references_share_a_cached_one_when_they_are_the_same(tmp_path: Path, tiny_model: Path) -> None:
    cache = str(tmp_path / "cache")
    first = trained(tmp_path / "first", tiny_model, reference_cache=cache)
    second = trained(tmp_path / "second", tiny_model, reference_cache=cache, dpo=DPO.model_copy(update={"beta": 0.3}))
    assert "Reference log-probs: 10 pairs from the cache" in [event.message for event in read_events(second)]
    third = trained(tmp_path / "third", tiny_model, reference_cache=cache, seed=4)
    assert "Reference log-probs: 10 pairs from the cache" not in [event.message for event in read_events(third)]
    assert sft_losses(first) == sft_losses(second) != sft_losses(third)


def test_a_checkpoint_whose_frozen_reference_was_changed_is_passed_over(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trained(tmp_path / "unbroken", tiny_model)
    make_run(tmp_path / "run", tiny_model, checkpoint_every_steps=2, **SFT)
    with monkeypatch.context() as patched:
        at_step(5, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(tmp_path / "run"))
    path = tmp_path / "run" / CHECKPOINTS / "step-00000004" / "reference_adapter.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    run(str(tmp_path / "run"))
    assert "resumed:ftjob-tiny-run:3" in [event.key for event in read_events(tmp_path / "run")]
    assert losses(tmp_path / "run") == losses(unbroken)


def test_a_loss_that_is_not_finite_names_the_phases_step_and_its_rows(tmp_path: Path, tiny_model: Path) -> None:
    hot = DPO.model_copy(update={"lr_scheduler": "constant", "max_grad_norm": 1e30})
    make_run(tmp_path / "run", tiny_model, dpo=hot, reference="sft", sft=SftParameters(n_epochs=2, learning_rate=1e30))
    code, _, message = failure(tmp_path / "run")
    assert code == "non_finite_loss"
    assert "at SFT step 2; its pairs: line " in message
    assert "method.dpo.reference.learning_rate" in message


def test_a_model_on_padded_rows_is_estimated_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    tokenizer.save_pretrained(tmp_path / "gemma")
    folder = trained(tmp_path / "run", tmp_path / "gemma")
    assert "padded" in [event.key for event in read_events(folder)]
    told = sft_losses(folder)
    assert told[6] < told[1]
    assert next(event.step_metrics for event in read_events(folder) if event.step_metrics).rewards_margin == 0
