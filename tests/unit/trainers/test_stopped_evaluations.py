"""A stop does not wait for an evaluation; what the next attempt then tells is what the unbroken run tells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.run_layout import ADAPTER, CHECKPOINTS, METRICS_CSV
from schemas.run_spec import GuardParameters
from tests.tiny_runs import make_run, preference_rows, read_events, write_preferences
from tests.unit.trainers.test_entrypoint import at_step, send_sigterm
from trainers.dpo import evaluate, prepare
from trainers.entrypoint import run
from trainers.errors import RunStopped

pytestmark = pytest.mark.slow

PASSES = 5
"""Of an evaluation: a pass has room for one pair."""


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each pass of an evaluation."""
    made: list[None] = []
    compare = evaluate._compare

    def counting(*arguments: Any) -> Any:
        made.append(None)
        return compare(*arguments)

    monkeypatch.setattr(evaluate, "_compare", counting)
    monkeypatch.setitem(prepare.TOKENS_A_PASS, "cpu", 32)
    return made


def in_pass(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in a pass of the first evaluation."""
    seen: list[None] = []
    compare = evaluate._compare

    def acting(*arguments: Any) -> Any:
        seen.append(None)
        if len(seen) == number:
            act()
        return compare(*arguments)

    monkeypatch.setattr(evaluate, "_compare", acting)


def make_evaluated_run(folder: Path, model: Path, **changes: Any) -> None:
    """Six steps, three an epoch; the third and the last one are evaluated."""
    folder.mkdir()
    validation = write_preferences(folder / "validation.jsonl", preference_rows(PASSES, first=50))
    limits = {"max_kl": 100.0, "min_chosen_logp_ratio": None, "max_valid_loss_rise": None}
    guards = GuardParameters.model_validate(limits | {"patience": 1, "action": "stop"})
    make_run(folder, model, validation_file=validation, guards=guards, evaluate_every_steps=3, **changes)


def told(*folders: Path) -> dict[str, Any]:
    """What was told first under each key, but for times."""
    first: dict[str, Any] = {}
    for event in (event for folder in folders for event in read_events(folder)):
        if event.key.startswith(("step:", "checkpoint:")):
            step = event.step_metrics and event.step_metrics.model_copy(update={"step_seconds": 0.0})
            told_of = (event.message, step, event.evaluation, event.checkpoint)
            first.setdefault(event.key, told_of)
    return first


@pytest.mark.parametrize(
    ("stop_in", "made"),
    [
        pytest.param("the step before it", 0, id="before it"),
        pytest.param("its second pass", 2, id="in its second pass"),
        pytest.param("its last pass", PASSES, id="in its last pass"),
        pytest.param("the last step", PASSES, id="before the last one"),
    ],
)
def test_a_stop_ends_before_an_evaluation_which_the_next_attempt_makes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, passes: list[None], stop_in: str, made: int
) -> None:
    make_evaluated_run(tmp_path / "unbroken", tiny_model)
    run(str(tmp_path / "unbroken"))
    assert len(passes) == 2 * PASSES
    passes.clear()
    make_evaluated_run(tmp_path / "stopped", tiny_model)
    step = 6 if stop_in == "the last step" else 3
    with monkeypatch.context() as patched:
        match stop_in:
            case "the step before it" | "the last step":
                at_step(step, send_sigterm, patched)
            case "its second pass":
                in_pass(2, send_sigterm, patched)
            case _:
                in_pass(PASSES, send_sigterm, patched)
        with pytest.raises(RunStopped, match=f"after step {step} of 6, before its evaluation"):
            run(str(tmp_path / "stopped"))
    assert len(passes) == made
    assert (tmp_path / "stopped" / CHECKPOINTS / f"step-{step:08d}" / "manifest.json").exists()
    assert f"step:{step}" not in told(tmp_path / "stopped")
    make_evaluated_run(tmp_path / "resumed", tiny_model, resume_from=(str(tmp_path / "stopped"),))
    outcome = run(str(tmp_path / "resumed"))
    assert outcome is not None
    assert outcome.error is None
    check_equal(tmp_path, "stopped", "resumed")


def test_a_stop_in_the_evaluation_that_was_left_leaves_it_once_more(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, passes: list[None]
) -> None:
    make_evaluated_run(tmp_path / "unbroken", tiny_model)
    run(str(tmp_path / "unbroken"))
    make_evaluated_run(tmp_path / "run", tiny_model)
    for _ in range(2):
        with monkeypatch.context() as patched:
            in_pass(1, send_sigterm, patched)
            with pytest.raises(RunStopped, match="before its evaluation"):
                run(str(tmp_path / "run"))
    run(str(tmp_path / "run"))
    check_equal(tmp_path, "run")


def check_equal(tmp_path: Path, *names: str) -> None:
    assert told(*(tmp_path / name for name in names)) == told(tmp_path / "unbroken")
    ended, unbroken = tmp_path / names[-1], tmp_path / "unbroken"
    ours, theirs = (load_file(folder / ADAPTER / "adapter_model.safetensors") for folder in (ended, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len((ended / METRICS_CSV).read_text().splitlines()) == 7
