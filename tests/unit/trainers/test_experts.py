"""Mixtures of experts, whose weights PEFT adapts as parameters: no linear layer holds them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, PhimoeConfig, PretrainedConfig, Qwen3MoeConfig

from schemas.fine_tuning import ReferenceType
from schemas.run_layout import ADAPTER
from schemas.run_spec import AdapterSource
from tests.tiny_model import SIZES, tiny_tokenizer
from tests.tiny_runs import make_run, read_events
from trainers.checkpoints import stored_file
from trainers.entrypoint import run

CONFIGS: dict[str, PretrainedConfig] = {
    "mixtral": MixtralConfig(vocab_size=320, num_local_experts=4, **SIZES),
    "phimoe": PhimoeConfig(vocab_size=320, num_local_experts=4, **SIZES),
    "qwen3_moe": Qwen3MoeConfig(
        vocab_size=320, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8, **SIZES
    ),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning"),  # PEFT, of experts
]


@pytest.fixture(params=CONFIGS)
def experts(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(7)
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_config(CONFIGS[request.param], dtype=torch.float32).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("reference", ["initial", "base"])
def test_an_ft_model_with_experts_is_continued(experts: Path, tmp_path: Path, reference: ReferenceType) -> None:
    make_run(tmp_path / "first", experts)
    run(str(tmp_path / "first"))
    weights = (tmp_path / "first" / ADAPTER / "adapter_model.safetensors").read_bytes()
    initial = AdapterSource(uri=str(tmp_path / "first" / ADAPTER), sha256=stored_file("", weights).sha256)
    make_run(tmp_path / "second", experts, initial_adapter=initial, reference=reference)
    outcome = run(str(tmp_path / "second"))
    assert outcome is not None
    assert outcome.error is None, outcome.error
    first = next(event.step_metrics for event in read_events(tmp_path / "second") if event.step_metrics is not None)
    assert (first.rewards_margin == 0) == (reference == "initial"), first
    before, after = (load_file(tmp_path / name / ADAPTER / "adapter_model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    assert scales(tmp_path / "first") == scales(tmp_path / "second")


def scales(run_folder: Path) -> list[Any]:
    settings = json.loads((run_folder / ADAPTER / "adapter_config.json").read_bytes())
    return [settings[name] for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")]


def test_what_is_not_trls_loss_is_told(experts: Path, tmp_path: Path, tiny_model: Path) -> None:
    for name, model in (("experts", experts), ("dense", tiny_model)):
        make_run(tmp_path / name, model)
        run(str(tmp_path / name))
    told = {event.key: event.message for event in read_events(tmp_path / "experts")}
    assert "without the auxiliary load-balancing loss, which TRL by default adds 0.001 times" in told["experts"]
    assert "experts" not in {event.key for event in read_events(tmp_path / "dense")}
