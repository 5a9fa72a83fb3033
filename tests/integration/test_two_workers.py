"""Two workers under torchrun train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from schemas.run_layout import ADAPTER, OUTCOME
from schemas.run_record import Outcome
from schemas.run_spec import GuardParameters, SftParameters
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import DPO, losses, make_run, preference_rows, read_events, write_preferences
from trainers.entrypoint import run

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")


def run_on_two(
    folder: Path, *arguments: str, module: str = "trainers", timeout_s: int = 120
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*TORCHRUN, module, str(folder), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("loss_type", ["sigmoid", {"aot": 1.0, "sft": 0.5}], ids=["sigmoid", "coupled"])
def test_two_workers_give_the_losses_and_weights_of_one(
    tmp_path: Path, model: Path, loss_type: str | dict[str, float]
) -> None:
    """Nine pairs, four a step: in each epoch's last step one worker has nothing to do."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, workers in ((one, 1), (two, 2)):
        folder.mkdir()
        training = write_preferences(folder / "nine.jsonl", preference_rows(9))
        validation = write_preferences(folder / "validation.jsonl", preference_rows(3, first=30))
        dpo = DPO.model_copy(update={"loss_type": loss_type})
        make_run(folder, model, training_file=training, validation_file=validation, workers=workers, dpo=dpo)
    run(str(one))
    ended = run_on_two(two)
    assert ended.returncode == 0, ended.stderr
    assert Outcome.model_validate_json((two / OUTCOME).read_bytes()).status == "succeeded"
    pairs = list(zip(read_events(one), read_events(two), strict=True))
    assert len(pairs) == 10
    for ours, theirs in pairs:
        assert ours.key == theirs.key
        assert without_time(ours.step_metrics) == pytest.approx(without_time(theirs.step_metrics), rel=1e-5, abs=1e-5)
        assert without_time(ours.evaluation) == pytest.approx(without_time(theirs.evaluation), rel=1e-5, abs=1e-5)
    weights = [load_file(folder / ADAPTER / "adapter_model.safetensors") for folder in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=1e-4)


def test_two_workers_stop_at_the_same_guard_and_deliver_its_best(tmp_path: Path, model: Path) -> None:
    (tmp_path / "run").mkdir()
    validation = write_preferences(tmp_path / "run" / "validation.jsonl", preference_rows(3, first=30))
    limits = {"max_kl": 1e-4, "min_chosen_logp_ratio": None, "max_valid_loss_rise": None}
    guards = GuardParameters.model_validate(limits | {"patience": 2, "action": "stop"})
    make_run(tmp_path / "run", model, validation_file=validation, guards=guards, evaluate_every_steps=2, workers=2)
    ended = run_on_two(tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    outcome = Outcome.model_validate_json((tmp_path / "run" / OUTCOME).read_bytes())
    assert (outcome.status, outcome.steps) == ("succeeded", 4)
    assert [event.key for event in read_events(tmp_path / "run")][-3:] == ["guard:4", "checkpoint:4", "finished"]


def test_one_worker_out_of_memory_makes_both_make_the_step_again(tmp_path: Path, model: Path) -> None:
    for name, workers in (("roomy", 1), ("cramped", 2)):
        make_run(tmp_path / name, model, workers=workers)
    run(str(tmp_path / "roomy"))
    ended = run_on_two(tmp_path / "cramped", "40", module="tests.cramped_layout")
    assert ended.returncode == 0, ended.stderr
    assert losses(tmp_path / "cramped") == pytest.approx(losses(tmp_path / "roomy"), rel=1e-5)
    told = [event.message for event in read_events(tmp_path / "cramped") if event.level == "warn"]
    assert told == [
        "Out of memory at step 1: passes have at most 32 tokens from now on, not 1,024; results stay the same"
    ]


def without_time(metrics: object) -> dict[str, float]:
    if metrics is None:
        return {}
    return {name: value for name, value in vars(metrics).items() if name not in ("step_seconds", "seconds_left")}


def test_two_workers_estimate_the_reference_as_one_does(tmp_path: Path, model: Path) -> None:
    """Nine pairs, four a step: in each epoch's last step one worker has nothing to do."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, workers in ((one, 1), (two, 2)):
        folder.mkdir()
        training = write_preferences(folder / "nine.jsonl", preference_rows(9))
        sft = SftParameters(n_epochs=2, learning_rate=5e-3)
        make_run(folder, model, training_file=training, workers=workers, reference="sft", sft=sft)
    run(str(one))
    ended = run_on_two(two)
    assert ended.returncode == 0, ended.stderr
    pairs = list(zip(read_events(one), read_events(two), strict=True))
    assert len(pairs) == 17
    for ours, theirs in pairs:
        assert ours.key == theirs.key
        assert without_time(ours.sft_metrics) == pytest.approx(without_time(theirs.sft_metrics), rel=1e-5, abs=1e-5)
        assert without_time(ours.step_metrics) == pytest.approx(without_time(theirs.step_metrics), rel=1e-4, abs=1e-4)


def test_two_workers_fill_the_reference_cache_and_take_from_it(tmp_path: Path, model: Path) -> None:
    told = []
    for name in ("first", "second"):
        make_run(tmp_path / name, model, workers=2, reference_cache=str(tmp_path / "cache"))
        ended = run_on_two(tmp_path / name)
        assert ended.returncode == 0, ended.stderr
        told.append([event.message for event in read_events(tmp_path / name) if "Reference" in event.message])
    assert told == [
        ["Reference log-probs: 10 pairs computed during the first epoch and cached"],
        ["Reference log-probs: 10 pairs from the cache"],
    ]
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


def test_the_users_fault_ends_two_workers_with_one_outcome(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder, model, workers=2)
    write_preferences(folder / "training.jsonl", preference_rows(2))
    ended = run_on_two(folder)
    assert ended.returncode == 0, ended.stderr
    outcome = Outcome.model_validate_json((folder / OUTCOME).read_bytes())
    assert outcome.error is not None
    assert outcome.error.code == "invalid_training_file"
