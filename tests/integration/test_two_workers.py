"""Two workers under torchrun train as one does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.run_layout import ADAPTER, OUTCOME
from schemas.run_record import Outcome
from schemas.run_spec import GuardParameters, SftParameters
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import DPO, losses, make_run, preference_rows, read_events, write_preferences
from tests.two_worker_runs import Planned, write_plan
from trainers.entrypoint import run

ROOT = Path(__file__).parents[2]
MODULE = "tests.two_worker_runs"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", MODULE)
SIGMOID, COUPLED, ESTIMATED = "sigmoid", "a coupled loss", "an estimated reference"
OF_ONE: dict[str, dict[str, Any]] = {
    SIGMOID: {"dpo": DPO},
    COUPLED: {"dpo": DPO.model_copy(update={"loss_type": {"aot": 1.0, "sft": 0.5}})},
    ESTIMATED: {"reference": "sft", "sft": SftParameters(n_epochs=2, learning_rate=5e-3)},
}
"""Made by one worker, too. Nine pairs, four a step: in each epoch's last step one of two has nothing to do."""


FAULTS_OF_ONE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unusable": ({}, {"is_unusable": True}, "model_not_usable"),
    "unusable, perhaps to be sharded": ({"shards_base": None}, {"is_unusable": True}, "model_not_usable"),
    "cramped from the start": ({}, {"cramped_at": "anywhere", "room_tokens": 10}, "not_enough_memory"),
}
"""What differs in the spec, what is wrong on worker 1 alone, and the outcome's code."""
USERS_FAULT = "too few pairs"


def run_on_two(folder: Path, *, timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*TORCHRUN, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Folders `NAME/two` of all in OF_ONE, `guarded`, `cramped`, `first` and `second`, and those of FAULTS_OF_ONE and
    USERS_FAULT, made by two workers."""
    parent = tmp_path_factory.mktemp("runs")
    for name in OF_ONE:
        make_of_nine(parent / name / "two", model, name, workers=2)
    validation = _three_pairs(parent, first=6)  # of those that are trained on, whose loss falls
    limits = {"max_kl": 1e-4, "min_chosen_logp_ratio": None, "max_valid_loss_rise": None}
    guards = GuardParameters.model_validate(limits | {"patience": 2, "action": "stop"})
    guarded = {"validation_file": validation, "guards": guards, "evaluate_every_steps": 2}
    cache = {"reference_cache": str(parent / "cache")}
    others = {"guarded": guarded, "cramped": {}, "first": cache, "second": cache}
    for name, changes in others.items():
        make_run(parent / name, model, workers=2, **changes)
    planned = [Planned(str(parent / name / "two")) for name in OF_ONE]
    cramped_at = {"cramped": "before the pass"}
    planned += [Planned(str(parent / name), cramped_at.get(name)) for name in others]  # type: ignore[arg-type]
    for name, (changes, faults, _) in FAULTS_OF_ONE.items():
        make_run(parent / name, model, workers=2, **changes)
        planned.insert(0, Planned(str(parent / name), **faults))
    make_run(parent / USERS_FAULT, model, workers=2)
    write_preferences(parent / USERS_FAULT / "training.jsonl", preference_rows(2))
    write_plan(parent, [Planned(str(parent / USERS_FAULT)), *planned])
    ended = run_on_two(parent)
    assert ended.returncode == 0, ended.stderr
    return parent


def make_of_nine(folder: Path, model: Path, name: str, *, workers: int) -> None:
    folder.mkdir(parents=True)
    files = {"training_file": write_preferences(folder / "nine.jsonl", preference_rows(9))}
    if name != ESTIMATED:
        files["validation_file"] = _three_pairs(folder, first=30)
    make_run(folder, model, workers=workers, **files, **OF_ONE[name])


def _three_pairs(folder: Path, *, first: int) -> Any:
    file = write_preferences(folder / "validation.jsonl", preference_rows(3, first=first))
    return file.model_copy(update={"uri": str(folder / "validation.jsonl")})


def on_one(folder: Path, model: Path, name: str) -> Path:
    make_of_nine(folder, model, name, workers=1)
    run(str(folder))
    return folder


@pytest.mark.parametrize("name", [SIGMOID, COUPLED])
def test_two_workers_give_the_losses_and_weights_of_one(tmp_path: Path, model: Path, runs: Path, name: str) -> None:
    one, two = on_one(tmp_path / "one", model, name), runs / name / "two"
    assert Outcome.model_validate_json((two / OUTCOME).read_bytes()).status == "succeeded"
    pairs = list(zip(read_events(one), read_events(two), strict=True))
    assert len(pairs) == 10
    for ours, theirs in pairs:
        assert ours.key == theirs.key
        assert without_time(ours.step_metrics) == pytest.approx(without_time(theirs.step_metrics), rel=1e-5, abs=1e-5)
        assert without_time(ours.evaluation) == pytest.approx(without_time(theirs.evaluation), rel=1e-5, abs=1e-5)
    weights = [load_file(folder / ADAPTER / "adapter_model.safetensors") for folder in (one, two)]
    for weight_name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][weight_name], rtol=1e-3, atol=1e-4)


def test_two_workers_stop_at_the_same_guard_and_deliver_its_best(runs: Path) -> None:
    outcome = Outcome.model_validate_json((runs / "guarded" / OUTCOME).read_bytes())
    assert (outcome.status, outcome.steps) == ("succeeded", 4)
    assert [event.key for event in read_events(runs / "guarded")][-3:] == ["guard:4", "checkpoint:4", "finished"]


def test_one_worker_out_of_memory_makes_both_make_the_step_again(tmp_path: Path, model: Path, runs: Path) -> None:
    make_run(tmp_path / "roomy", model)
    run(str(tmp_path / "roomy"))
    assert losses(runs / "cramped") == pytest.approx(losses(tmp_path / "roomy"), rel=1e-5)
    told = [event.message for event in read_events(runs / "cramped") if event.level == "warn"]
    assert told == [
        "Out of memory at step 1: passes have at most 32 tokens from now on, not 1,024; results stay the same"
    ]


def without_time(metrics: object) -> dict[str, float]:
    if metrics is None:
        return {}
    return {name: value for name, value in vars(metrics).items() if name not in ("step_seconds", "seconds_left")}


def test_two_workers_estimate_the_reference_as_one_does(tmp_path: Path, model: Path, runs: Path) -> None:
    one, two = on_one(tmp_path / "one", model, ESTIMATED), runs / ESTIMATED / "two"
    pairs = list(zip(read_events(one), read_events(two), strict=True))
    assert len(pairs) == 17
    for ours, theirs in pairs:
        assert ours.key == theirs.key
        assert without_time(ours.sft_metrics) == pytest.approx(without_time(theirs.sft_metrics), rel=1e-5, abs=1e-5)
        assert without_time(ours.step_metrics) == pytest.approx(without_time(theirs.step_metrics), rel=1e-4, abs=1e-4)


def test_two_workers_fill_the_reference_cache_and_take_from_it(runs: Path) -> None:
    told = [
        [event.message for event in read_events(runs / name) if "Reference" in event.message]
        for name in ("first", "second")
    ]
    assert told == [
        ["Reference log-probs: 10 pairs computed during the first epoch and cached"],
        ["Reference log-probs: 10 pairs from the cache"],
    ]
    assert losses(runs / "first") == losses(runs / "second")


@pytest.mark.parametrize("name", FAULTS_OF_ONE)
def test_what_only_the_second_worker_finds_wrong_ends_the_run_with_its_words(runs: Path, name: str) -> None:
    error = Outcome.model_validate_json((runs / name / OUTCOME).read_bytes()).error
    assert error is not None
    assert error.code == FAULTS_OF_ONE[name][2]


def test_the_users_fault_ends_two_workers_with_one_outcome(runs: Path) -> None:
    error = Outcome.model_validate_json((runs / USERS_FAULT / OUTCOME).read_bytes()).error
    assert error is not None
    assert error.code == "invalid_training_file"
