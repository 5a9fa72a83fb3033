"""Guards in whole runs: what a stop delivers, how a pause goes on, and that a kill in between changes nothing."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.run_layout import ADAPTER, CHECKPOINTS, METRICS_CSV
from schemas.run_record import EvaluationMetrics, Outcome, RunEvent
from schemas.run_spec import GuardParameters, RunSpec
from tests.tiny_runs import losses, make_run, preference_rows, read_events, write_preferences
from trainers import entrypoint
from trainers.dpo import train
from trainers.dpo.loop_events import step_event
from trainers.dpo.progress import HistoryEntry
from trainers.entrypoint import run

pytestmark = pytest.mark.slow

BEYOND_AT_ONCE = 1e-4


def guarded_run(
    folder: Path, model: Path, *, action: str, max_kl: float = BEYOND_AT_ONCE, patience: int = 1, **changes: Any
) -> RunSpec:
    """Six steps, each evaluated, on pairs that are trained on, whose loss falls; three make an epoch."""
    guards = GuardParameters.model_validate(
        {"max_kl": max_kl, "min_chosen_logp_ratio": None, "max_valid_loss_rise": None}
        | {"patience": patience, "action": action}
    )
    folder.mkdir(parents=True, exist_ok=True)
    validation = write_preferences(folder / "validation.jsonl", preference_rows(4, first=2))
    every_step = {"evaluate_every_steps": 1, "checkpoint_every_steps": 2, "validation_file": validation}
    return make_run(folder, model, guards=guards, **every_step, **changes)


def run_of(folder: Path) -> Outcome:
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is None
    return outcome


def guard_events(folder: Path) -> list[RunEvent]:
    return [event for event in read_events(folder) if event.key.startswith("guard:")]


def lowest_loss_step(folder: Path) -> int:
    evaluations: list[EvaluationMetrics] = [event.evaluation for event in read_events(folder) if event.evaluation]
    return min(evaluations, key=lambda evaluation: evaluation.valid_loss).step


def steps_in_csv(folder: Path) -> list[int]:
    with (folder / METRICS_CSV).open() as stream:
        return [int(row["step"]) for row in csv.DictReader(stream)]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_equal_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_stop_delivers_the_best_step_and_says_so_everywhere(tmp_path: Path, tiny_model: Path) -> None:
    guarded_run(tmp_path / "run", tiny_model, action="stop", patience=4)
    outcome = run_of(tmp_path / "run")
    assert (outcome.status, outcome.steps) == ("succeeded", 4)
    assert steps_in_csv(tmp_path / "run") == [1, 2, 3, 4]
    best = lowest_loss_step(tmp_path / "run")
    [event] = guard_events(tmp_path / "run")
    assert (event.key, event.level) == ("guard:4", "warn")
    assert f"the adapter of step {best} (lowest validation loss" in event.message
    passport = json.loads((tmp_path / "run" / ADAPTER / "passport.json").read_text())
    assert (passport["steps"], passport["delivered_step"]) == (4, best)
    assert passport["delivered_because"].startswith("a guard stopped the run after step 4; lowest validation loss")
    assert f"| adapter of step | {best}: a guard" in (tmp_path / "run" / ADAPTER / "README.md").read_text()
    listed = {event.checkpoint.step: event.checkpoint for event in read_events(tmp_path / "run") if event.checkpoint}
    assert best in listed
    assert outcome.adapter is not None
    assert listed[best].adapter_sha256 == outcome.adapter.sha256


def test_the_delivered_adapter_is_the_one_of_that_step(tmp_path: Path, tiny_model: Path) -> None:
    guarded_run(tmp_path / "run", tiny_model, action="stop", patience=4)
    run_of(tmp_path / "run")
    best = lowest_loss_step(tmp_path / "run")
    guarded_run(tmp_path / "until", tiny_model, action="pause", patience=best)
    assert run_of(tmp_path / "until").steps == best
    checkpoint = tmp_path / "until" / CHECKPOINTS / f"step-{best:08d}" / ADAPTER
    assert_equal_weights(weights_of(tmp_path / "run" / ADAPTER), weights_of(checkpoint))


def test_a_guard_that_does_not_fire_leaves_the_last_step_as_the_result(tmp_path: Path, tiny_model: Path) -> None:
    guarded_run(tmp_path / "run", tiny_model, action="stop", patience=7)
    make_run(tmp_path / "bare", tiny_model)
    assert run_of(tmp_path / "run").steps == run_of(tmp_path / "bare").steps == 6
    assert guard_events(tmp_path / "run") == []
    assert_equal_weights(weights_of(tmp_path / "run" / ADAPTER), weights_of(tmp_path / "bare" / ADAPTER))
    passport = json.loads((tmp_path / "run" / ADAPTER / "passport.json").read_text())
    assert (passport["delivered_step"], passport["delivered_because"]) == (6, "the last step")


def test_a_warning_is_told_once_and_changes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    guarded_run(tmp_path / "run", tiny_model, action="warn", patience=2)
    assert run_of(tmp_path / "run").steps == 6
    assert [event.key for event in guard_events(tmp_path / "run")] == ["guard:2"]


def test_a_pause_goes_on_past_its_breach_and_counts_anew(tmp_path: Path, tiny_model: Path) -> None:
    folders = [tmp_path / str(attempt) for attempt in (1, 2, 3, 4)]
    ends = []
    for number, folder in enumerate(folders):
        earlier = tuple(str(each) for each in reversed(folders[:number]))
        guarded_run(folder, tiny_model, action="pause", patience=2, resume_from=earlier)
        outcome = run_of(folder)
        ends.append((outcome.status, outcome.steps))
    assert ends == [("paused", 2), ("paused", 4), ("paused", 6), ("succeeded", 6)]
    assert [list(losses(folder)) for folder in folders] == [[1, 2], [3, 4], [5, 6], []]
    assert steps_in_csv(folders[-1]) == [1, 2, 3, 4, 5, 6]


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("action", ["stop", "pause"])
@pytest.mark.parametrize("cut", ["before the checkpoint", "before the outcome"])
def test_a_run_killed_after_its_guard_fired_ends_at_the_same_step(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, action: str, cut: str
) -> None:
    guarded_run(tmp_path / "unbroken", tiny_model, action=action, patience=3)
    whole = run_of(tmp_path / "unbroken")
    guarded_run(tmp_path / "first", tiny_model, action=action, patience=3)

    def die(*_arguments: object, **_options: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if cut == "before the outcome":
            patched.setattr(entrypoint, "_outcome", die)
        else:
            honest = train.write_checkpoint
            patched.setattr(
                train,
                "write_checkpoint",
                lambda folder, step, *rest, **options: die() if step == 3 else honest(folder, step, *rest, **options),
            )
        with pytest.raises(Killed):
            run(str(tmp_path / "first"))
    guarded_run(tmp_path / "second", tiny_model, action=action, patience=3, resume_from=(str(tmp_path / "first"),))
    outcome = run_of(tmp_path / "second")
    assert (outcome.status, outcome.steps) == (whole.status, whole.steps) == (outcome.status, 3)
    assert losses(tmp_path / "first") | losses(tmp_path / "second") == losses(tmp_path / "unbroken")
    if action == "stop":
        assert_equal_weights(weights_of(tmp_path / "second" / ADAPTER), weights_of(tmp_path / "unbroken" / ADAPTER))
    else:
        resumed = (str(tmp_path / "second"), str(tmp_path / "first"))
        guarded_run(tmp_path / "third", tiny_model, action=action, patience=3, resume_from=resumed)
        assert run_of(tmp_path / "third").steps == 6


def test_the_best_adapter_survives_a_kill_long_after_its_step(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the limit until step 2, killed at step 4: the checkpoint of step 3 has the adapter of step 2 with it."""
    guarded_run(tmp_path / "warned", tiny_model, action="warn")
    run_of(tmp_path / "warned")
    evaluations = [event.evaluation for event in read_events(tmp_path / "warned") if event.evaluation]
    kl = {evaluation.step: evaluation.valid_kl for evaluation in evaluations}
    assert kl[1] < kl[2] < kl[3] < kl[4]
    limits: dict[str, Any] = {"action": "stop", "max_kl": (kl[2] + kl[3]) / 2, "patience": 2}
    guarded_run(tmp_path / "unbroken", tiny_model, **limits)
    run_of(tmp_path / "unbroken")
    guarded_run(tmp_path / "first", tiny_model, **limits)

    def tell_until_step_4(entry: HistoryEntry) -> RunEvent:
        if entry.step.step == 4:
            raise Killed
        return step_event(entry)

    with monkeypatch.context() as patched:
        patched.setattr(train, "step_event", tell_until_step_4)
        with pytest.raises(Killed):
            run(str(tmp_path / "first"))
    guarded_run(tmp_path / "second", tiny_model, resume_from=(str(tmp_path / "first"),), **limits)
    assert run_of(tmp_path / "second").steps == 4
    passport = json.loads((tmp_path / "second" / ADAPTER / "passport.json").read_text())
    assert passport["delivered_step"] == 2
    assert_equal_weights(weights_of(tmp_path / "second" / ADAPTER), weights_of(tmp_path / "unbroken" / ADAPTER))
