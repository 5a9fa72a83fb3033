"""What a resumed run takes from the checkpoint of the one before."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from schemas.run_layout import CHECKPOINTS
from tests.tiny_model import tiny_llama
from tests.tiny_runs import LORA, make_run, read_events
from tests.unit.trainers.test_entrypoint import at_step, send_sigterm
from trainers.dpo.progress import adapter_files
from trainers.entrypoint import run
from trainers.errors import RunStopped
from trainers.models.lora import add_lora


def test_an_adapters_config_has_its_names_in_order() -> None:
    policy = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=1)
    config = json.loads(adapter_files(policy, b"", base_model="tiny")["adapter_config.json"])
    assert len(config["target_modules"]) == 14
    assert config["target_modules"] == sorted(config["target_modules"])


@pytest.mark.slow
def test_the_reference_of_other_tokens_is_forgotten_and_that_is_told(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    make_run(tmp_path / "first", model)
    with monkeypatch.context() as patched:
        at_step(2, send_sigterm, patched)
        with pytest.raises(RunStopped):
            run(str(tmp_path / "first"))
    template = model / "chat_template.jinja"
    template.write_text(f"the old river {template.read_text()}")
    make_run(tmp_path / "second", model, resume_from=(str(tmp_path / "first"),))
    run(str(tmp_path / "second"))
    make_run(tmp_path / "unbroken", model)
    run(str(tmp_path / "unbroken"))
    told = [event.message for event in read_events(tmp_path / "second") if event.level == "warn"]
    assert len(told) == 1
    assert "tokens are others than before" in told[0]
    last = Path(CHECKPOINTS) / "step-00000006" / "reference.safetensors"
    ours, theirs = (load_file(tmp_path / name / last)["log_probs"] for name in ("second", "unbroken"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
