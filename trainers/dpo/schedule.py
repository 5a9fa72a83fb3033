"""The learning rate of each step: transformers' schedules with warm-up, as a pure function of the step.

As there, the first step of a warm-up has the rate zero. Not as there, the only step of a job is no warm-up: it would be
trained at the rate zero, and the adapter delivered as it was made.
"""

import math

from schemas.fine_tuning import LrScheduler


def learning_rate(step: int, *, total_steps: int, peak: float, warmup_ratio: float, scheduler: LrScheduler) -> float:
    """Return the rate that `step`, counting from 1, is made with."""
    done = step - 1
    warmup = math.ceil(total_steps * warmup_ratio) if total_steps > 1 else 0
    if done < warmup:
        return peak * done / warmup
    progress = (done - warmup) / max(1, total_steps - warmup)
    match scheduler:
        case "linear":
            return peak * max(0.0, 1.0 - progress)
        case "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "constant":
            return peak
