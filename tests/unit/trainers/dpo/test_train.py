"""The loop's own decisions."""

from pathlib import Path

from schemas.run_layout import CHECKPOINTS
from tests.tiny_runs import DPO, make_run, preference_rows, read_events, write_preferences
from trainers.entrypoint import run


def test_an_evaluation_that_is_not_finite_fails_the_run_for_good(tmp_path: Path, tiny_model: Path) -> None:
    hot = DPO.model_copy(update={"learning_rate": 1e30, "lr_scheduler": "constant", "max_grad_norm": 1e30})
    folder = tmp_path / "run"
    folder.mkdir()
    validation = write_preferences(folder / "validation.jsonl", preference_rows(3, first=50))
    make_run(folder, tiny_model, dpo=hot, validation_file=validation, evaluate_every_steps=1)
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param) == ("non_finite_loss", None)
    assert outcome.error.message.startswith("validation_file: the evaluation after step 1 gives numbers")
    assert "Lower the learning rate" in outcome.error.message
    assert [event.key for event in read_events(folder)] == ["started"]
    assert not (folder / CHECKPOINTS).exists()
