"""Losses, row weights and LoRA's variants through whole runs: what is told, kept and refused."""

import math
from pathlib import Path
from typing import Any

import pytest

from schemas.run_layout import ADAPTER
from schemas.run_spec import PreferenceFile, SftParameters
from tests.tiny_runs import DPO, LORA, losses, make_run, preference_rows, read_events, write_preferences
from tests.unit.trainers.test_entrypoint import adapter_of, failure
from trainers.entrypoint import run

pytestmark = pytest.mark.slow

DORA = LORA.model_copy(update={"use_dora": True})


def rows_file(tmp_path: Path, *weights: float, first: int = 0) -> PreferenceFile:
    rows = preference_rows(len(weights), first=first)
    rows = [row | {"weight": weight} for row, weight in zip(rows, weights, strict=True)]
    path = tmp_path / f"rows-{first}.jsonl"
    return write_preferences(path, rows).model_copy(update={"uri": str(path)})


def trained(folder: Path, model: Path, **changes: Any) -> dict[int, float]:
    make_run(folder, model, **changes)
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is None, outcome.error
    return losses(folder)


def test_the_unit_of_the_weights_changes_nothing_and_their_ratio_does(tmp_path: Path, tiny_model: Path) -> None:
    def losses_with(name: str, *weights: float) -> dict[int, float]:
        folder = tmp_path / name
        folder.mkdir()
        return trained(folder, tiny_model, training_file=rows_file(folder, *weights))

    plain, tens = losses_with("plain", *[1.0] * 8), losses_with("tens", *[10.0] * 8)
    assert plain == tens
    unequal = losses_with("unequal", *[1.0, 3.0] * 4)
    assert unequal == pytest.approx(losses_with("unequal tens", *[10.0, 30.0] * 4), rel=1e-5)
    assert unequal[1] == pytest.approx(math.log(2))
    assert unequal[4] != pytest.approx(plain[4], rel=1e-3)


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_unequal_weights_and_a_loss_that_sorts_are_refused(tmp_path: Path, tiny_model: Path, param: str) -> None:
    dpo = DPO.model_copy(update={"loss_type": {"aot": 1.0, "sft": 0.1}})
    make_run(tmp_path / "run", tiny_model, dpo=dpo, **{param: rows_file(tmp_path, 2.0, 2.0, 1.0, first=20)})
    code, found, message = failure(tmp_path / "run")
    assert (code, found) == (f"invalid_{param}", param)
    assert 'the loss "aot" sorts' in message
    assert "line 1 (id pair-20) and line 3 (id pair-22)" in message
    assert "remove weight from the rows" in message


def test_equal_weights_are_sorted_like_none(tmp_path: Path, tiny_model: Path) -> None:
    dpo = DPO.model_copy(update={"loss_type": "aot"})
    assert trained(tmp_path / "run", tiny_model, dpo=dpo, training_file=rows_file(tmp_path, *[3.0] * 6))[1] > 0


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("reference", ["initial", "sft"])
def test_dora_goes_on_from_an_ft_model_against_a_frozen_copy_of_it(
    tmp_path: Path, tiny_model: Path, dropout: float, reference: str
) -> None:
    trained(tmp_path / "first", tiny_model, lora=DORA)
    changes = {
        "initial_adapter": adapter_of(tmp_path / "first"),
        "lora": LORA.model_copy(update={"dropout": dropout}),
        "reference": reference,
        "sft": SftParameters(n_epochs=1, learning_rate=5e-3) if reference == "sft" else None,
    }
    told = trained(tmp_path / "second", tiny_model, **changes)
    assert "lora" in [event.key for event in read_events(tmp_path / "second")]
    if dropout == 0:
        assert told[1] == pytest.approx(math.log(2), abs=1e-6)
    config = (tmp_path / "second" / ADAPTER / "adapter_config.json").read_text()
    assert '"use_dora": true' in config


def test_the_card_names_the_losses_and_their_options(tmp_path: Path, tiny_model: Path) -> None:
    changes = {
        "loss_type": {"sigmoid": 0.8, "discopop": 1.0},
        "label_smoothing": 0.1,
        "f_divergence": "alpha_divergence",
        "ld_alpha": 0.5,
        "use_weighting": True,
    }
    told = trained(tmp_path / "run", tiny_model, dpo=DPO.model_copy(update=changes), lora=DORA)
    assert told[6] < told[1]
    card = (tmp_path / "run" / ADAPTER / "README.md").read_text()
    assert (
        "| loss | 0.8 × sigmoid + discopop, label smoothing 0.1, divergence alpha_divergence, α 0.5, LD-DPO α 0.5, "
        "WPO weighting on, τ 0.05, beta 0.1 |" in card
    )
    assert "| LoRA | r 4, alpha 8, DoRA |" in card


def test_both_perplexities_are_told(tmp_path: Path, tiny_model: Path) -> None:
    validation = write_preferences(tmp_path / "valid.jsonl", preference_rows(3, first=30))
    validation = validation.model_copy(update={"uri": str(tmp_path / "valid.jsonl")})
    trained(tmp_path / "run", tiny_model, validation_file=validation)
    last = [event for event in read_events(tmp_path / "run") if event.step_metrics][-1]
    assert last.step_metrics is not None
    assert last.evaluation is not None
    assert last.step_metrics.perplexity_rejected > last.step_metrics.perplexity_chosen > 1
    assert last.evaluation.valid_perplexity_rejected > 1
    header = (tmp_path / "run" / "results" / "step_metrics.csv").read_text().splitlines()[0].split(",")
    assert {"perplexity_rejected", "valid_perplexity_rejected"} <= set(header)
