"""Card and passport tell what was done, also where that is not what was asked for."""

import json
from pathlib import Path

import pytest

from schemas.run_layout import ADAPTER, SPEC
from schemas.run_spec import RunSpec
from tests.tiny_runs import DPO, make_run, read_events
from trainers import model_card
from trainers.checkpoints import stored_file
from trainers.entrypoint import run
from trainers.model_card import Delivered, Lineage, passport


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a run that asked for more tokens than its model reads."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    make_run(folder, tiny_model, dpo=DPO.model_copy(update={"max_length": 2_000, "n_epochs": 1, "batch_size": 10}))
    run(str(folder))
    return folder


def test_the_length_told_is_the_one_trained_at(finished: Path) -> None:
    made_of = json.loads((finished / ADAPTER / "passport.json").read_text())
    assert (made_of["max_length"], made_of["dpo"]["max_length"]) == (512, 2_000)
    assert "| longest sequence | 512 tokens |" in (finished / ADAPTER / "README.md").read_text()


def test_the_passport_tells_what_computed_and_in_how_many_bits(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_card, "version", lambda name: f"version of {name}")
    plain = RunSpec.model_validate_json((finished / SPEC).read_bytes())
    quantised = plain.model_copy(update={"quantization": "nf4", "precision": "bf16"})
    lineage = Lineage("0" * 64, (), stored_file("", b""), max_length=512, gpu_kernels="liger-kernel 0.8.0")
    (step,) = [event.step_metrics for event in read_events(finished) if event.step_metrics]
    delivered = Delivered(step, None, "the last step")
    made_of = passport(quantised, lineage, delivered, step)
    assert (made_of.quantization, made_of.precision, made_of.gpu_kernels) == ("nf4", "bf16", "liger-kernel 0.8.0")
    assert made_of.libraries["bitsandbytes"] == "version of bitsandbytes"
    assert "bitsandbytes" not in passport(plain, lineage, delivered, step).libraries
