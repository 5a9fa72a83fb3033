"""The schedules are transformers' own."""

import pytest
import torch
from transformers import get_scheduler

from schemas.fine_tuning import LrScheduler
from trainers.dpo.schedule import learning_rate

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
