"""A base without room ends the job with its size, what was free, and what to do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.cramped_layout import ask_a_gpu_for_too_much
from tests.tiny_runs import make_run
from trainers.entrypoint import run


def while_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: ask_a_gpu_for_too_much())


def while_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.nn.Module.to

    def move(module: torch.nn.Module, *arguments: Any, **options: Any) -> torch.nn.Module:
        if isinstance(module, PreTrainedModel):
            ask_a_gpu_for_too_much()
        return plain(module, *arguments, **options)

    monkeypatch.setattr(torch.nn.Module, "to", move)


def while_it_gets_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.dpo.prepare.add_lora", lambda *_, **__: ask_a_gpu_for_too_much())


@pytest.mark.parametrize("runs_out", [while_read, while_moved_to_the_device, while_it_gets_its_adapter])
def test_a_base_that_does_not_fit_fails_the_run_for_good(
    runs_out: Any, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", tiny_model, precision="bf16")
    runs_out(monkeypatch)
    monkeypatch.setattr("trainers.models.base_placement.free_bytes", lambda _: 1_230_000_000)
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param) == ("not_enough_memory", "model")
    assert "0.00 billion weights take 0.00 GB in bf16, and of cpu memory 1.23 GB were free" in outcome.error.message
    for remedy in (
        'precision to "bf16"',
        'quantization to "nf4"',
        "resources.gpus",
        'sharding "full"',
        "smaller model",
    ):
        assert remedy in outcome.error.message
