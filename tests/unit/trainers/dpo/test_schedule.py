"""The schedules are transformers' own, but for a job of one step, which learns."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import get_scheduler

from schemas.fine_tuning import LrScheduler
from schemas.run_layout import ADAPTER
from tests.tiny_runs import DPO, make_run, read_events
from trainers.dpo.schedule import learning_rate
from trainers.entrypoint import run

THEIR_NAMES: dict[LrScheduler, str] = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.parametrize("scheduler", THEIR_NAMES)
@pytest.mark.parametrize(("warmup_ratio", "warmup_steps"), [(0.0, 0), (0.1, 2), (0.33, 5), (1.0, 13)])
def test_every_steps_rate_is_transformers(scheduler: LrScheduler, warmup_ratio: float, warmup_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    theirs = get_scheduler(THEIR_NAMES[scheduler], optimizer, num_warmup_steps=warmup_steps, num_training_steps=13)
    for step in range(1, 14):
        rate = learning_rate(step, total_steps=13, peak=2e-4, warmup_ratio=warmup_ratio, scheduler=scheduler)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-20)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("scheduler", THEIR_NAMES)
@pytest.mark.parametrize("total_steps", [1, 2, 3])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 1.0])
def test_no_warm_up_takes_every_step(scheduler: LrScheduler, total_steps: int, warmup_ratio: float) -> None:
    rates = [
        learning_rate(step, total_steps=total_steps, peak=2e-4, warmup_ratio=warmup_ratio, scheduler=scheduler)
        for step in range(1, total_steps + 1)
    ]
    assert max(rates) > 0


def test_a_job_of_one_step_learns_whatever_its_warm_up(tmp_path: Path, tiny_model: Path) -> None:
    dpo = DPO.model_copy(update={"batch_size": 16, "n_epochs": 1, "warmup_ratio": 0.1})
    make_run(tmp_path / "run", tiny_model, dpo=dpo)
    run(str(tmp_path / "run"))
    (step,) = [event.step_metrics for event in read_events(tmp_path / "run") if event.step_metrics]
    assert step.learning_rate == DPO.learning_rate
    weights = load_file(tmp_path / "run" / ADAPTER / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)
