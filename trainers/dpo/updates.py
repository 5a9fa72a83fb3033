"""What DPO's optimizer steps and SFT's have in common: the rate, and sums and gradients over all workers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from schemas.run_spec import DpoParameters
from trainers.distributed import Workers
from trainers.dpo.schedule import learning_rate
from trainers.stop_signal import StopSignal


def set_learning_rate(optimizer: Optimizer, step: int, *, total_steps: int, peak: float, dpo: DpoParameters) -> float:
    rate = learning_rate(
        step, total_steps=total_steps, peak=peak, warmup_ratio=dpo.warmup_ratio, scheduler=dpo.lr_scheduler
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def sum_over_workers(sums: Tensor, workers: Workers, stop: StopSignal) -> Tensor:
    """Return all workers' sums, and behind them how many workers were asked to stop."""
    stops = torch.tensor([float(stop.is_requested)], dtype=torch.float64, device=workers.device)
    return workers.sum(torch.cat([sums, stops]))


def sum_and_clip(
    summed: Tensor, parameters: Sequence[Tensor], workers: Workers, *, max_grad_norm: float
) -> tuple[list[float], float, bool]:
    """Sum the gradients over all workers and clip them; here the host waits for the step's numbers.

    Returns: the sums of `sum_over_workers`, the gradient's norm, and whether any worker was asked to stop.
    """
    workers.sum_gradients(parameters)
    norm = clip_grad_norm_(parameters, max_grad_norm)
    *sums, stopping, grad_norm = torch.cat([summed, norm.double().view(1)]).tolist()
    return sums, grad_norm, stopping > 0
