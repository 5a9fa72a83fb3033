"""What only a GPU shows: whole runs in both precisions, and that a pass leaves the host free to go on.

Runs are processes of their own: Liger replaces functions of transformers for the whole process.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.run_record import Outcome
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import DPO, LORA, losses, make_run, read_events
from trainers.data.chat_tokens import PairTokens
from trainers.dpo.objective import Objective
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.reference import ReferenceTable
from trainers.dpo.step import accumulate_gradients
from trainers.models.causal_lm import load_causal_lm
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import add_lora

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def train(folder: Path, model: Path, **changes: Any) -> Outcome:
    make_run(folder, model, **changes)
    trainer = subprocess.run([sys.executable, "-m", "trainers", str(folder)], capture_output=True, text=True)
    assert trainer.returncode == 0, trainer.stderr
    outcome = Outcome.model_validate_json((folder / "outcome.json").read_text())
    assert outcome.error is None
    return outcome


def told(folder: Path) -> str:
    return "\n".join(event.message for event in read_events(folder))


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_run_in_half_precision_is_packed_and_loses_what_one_on_the_cpu_does(
    tmp_path: Path, architecture: str
) -> None:
    model = save_tiny_model(tmp_path / "model", architecture=architecture)
    train(tmp_path / "cpu", model)
    outcome = train(tmp_path / "gpu", model, precision="bf16", gpus_per_worker=1)
    assert outcome.peak_memory_bytes > 0
    assert "padded" not in told(tmp_path / "gpu")
    assert "Liger" not in told(tmp_path / "gpu")  # told where its kernels are missing
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), abs=0.05)


def test_a_run_in_full_precision_is_padded_and_loses_the_same(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    train(tmp_path / "cpu", model)
    train(tmp_path / "gpu", model, gpus_per_worker=1)
    assert 'half precision alone; set method.dpo.precision to "bf16"' in told(tmp_path / "gpu")
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_a_pass_never_makes_the_host_wait(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    base = load_causal_lm(save_tiny_model(tmp_path / "model"), precision="bf16", device=device)
    policy = add_lora(base, LORA, initial=None, reference="initial", seed=3)
    fuse_lora_layers(policy.model)
    pairs = [PairTokens((5, 6, 7), (8, 9, 10 + row), (11, 12), line=row, row_id=None) for row in range(4)]
    objective = Objective(policy, PackedLayout(policy, device, longest_row=6), DPO, device)
    reference = ReferenceTable(len(pairs))
    step = list(range(len(pairs)))
    accumulate_gradients(
        objective, [step], pairs, reference, step=step
    )  # learns the reference, which is kept on the host
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums = accumulate_gradients(objective, [[0, 1], [2, 3]], pairs, reference, step=step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sums[0].item() == len(pairs)
