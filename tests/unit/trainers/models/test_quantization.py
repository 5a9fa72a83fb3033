"""The base in 4 bits: what it needs is told, and on a GPU it trains."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny_runs import make_run, read_events
from trainers.entrypoint import run
from trainers.errors import QuantizationUnavailable
from trainers.models.causal_lm import load_causal_lm


def test_without_a_gpu_the_run_fails_and_says_what_to_do(tmp_path: Path, tiny_model: Path) -> None:
    make_run(tmp_path / "run", tiny_model, quantization="nf4")
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.param) == ("quantization_unavailable", "method.dpo.quantization")
    assert "leave quantization out" in outcome.error.message


def test_without_bitsandbytes_its_name_and_where_to_get_it_are_told(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # an import of it raises
    with pytest.raises(QuantizationUnavailable, match=r"bitsandbytes.* install dpo-service\[gpu\]"):
        load_causal_lm(tiny_model, precision="bf16", device=torch.device("cuda"), quantization="nf4")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: dpo-service[gpu]")
@pytest.mark.parametrize("use_dora", [False, True])
def test_a_quantised_base_trains(tmp_path: Path, tiny_model: Path, use_dora: bool) -> None:
    base = load_causal_lm(tiny_model, precision="bf16", device=torch.device("cuda", 0), quantization="nf4")
    assert any(type(module).__name__ == "Linear4bit" for module in base.modules())
    spec = make_run(tmp_path / "spec", tiny_model)
    make_run(
        tmp_path / "run",
        tiny_model,
        quantization="nf4",
        precision="bf16",
        gpus_per_worker=1,
        lora=spec.lora.model_copy(update={"use_dora": use_dora}),
    )
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is None
    steps = [event.step_metrics for event in read_events(tmp_path / "run") if event.step_metrics]
    assert steps[0].train_loss == pytest.approx(math.log(2), abs=1e-2)
    assert steps[-1].train_loss < steps[0].train_loss
