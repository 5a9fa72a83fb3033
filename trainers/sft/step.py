"""One step of maximum likelihood on the preferred completions: its gradient and its sums.

A pair's tokens count times its row's weight, as its loss does in DPO. B = pairs of a pass, N = their completions'
predicted tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.log_probs import sum_by_side
from trainers.dpo.objective import Objective
from trainers.dpo.rounds import SMALL_PAIR, PassShape, make_passes
from trainers.host_numbers import to_device


@dataclass(frozen=True, slots=True)
class TokenSums:
    nats: float
    """Of negative log-likelihood, times the rows' weights."""
    weights: float
    """The weight of each predicted token."""
    tokens: float
    correct: float
    """Those that are the policy's argmax."""
    trained_tokens: float
    """With the prompts'."""


def demonstrations(pairs: Sequence[PairTokens]) -> list[PairTokens]:
    """Return the pairs without their rejected sides, which then cost no layout anything."""
    return [replace(pair, rejected=()) for pair in pairs]


def predicted_tokens(pairs: Sequence[PairTokens]) -> int:
    """Count the preferred completions' tokens that have a token before them."""
    return sum(pair.predicted_chosen_tokens for pair in pairs)


def accumulate_gradients(objective: Objective, passes: Sequence[Sequence[PairTokens]], *, step_tokens: int) -> Tensor:
    """Add this worker's part of the gradient of the mean loss over the step's tokens, pass by pass.

    Returns: its `TokenSums` as a vector, float64.
    """
    total = torch.zeros(len(fields(TokenSums)), dtype=torch.float64, device=objective.device)

    def make(pairs: Sequence[PairTokens]) -> None:
        with objective.policy.with_dropout():
            states = objective.layout.states(pairs)
        log_probs_N, correct_N = states.log_probs()
        lengths_B = states.lengths[: len(pairs)]
        weights_B = to_device([pair.weight for pair in pairs], objective.device, torch.float32)
        nats = -(weights_B * sum_by_side(log_probs_N, lengths_B)).sum()
        torch.autograd.backward(nats / step_tokens)
        trained_tokens = sum(pair.packed_length for pair in pairs)
        # Filled in on the device: to copy it there the host would wait.
        trained = torch.full((), trained_tokens, dtype=torch.float64, device=objective.device)
        sums = [nats.detach(), (weights_B * lengths_B).sum(), lengths_B.sum(), correct_N.sum(), trained]
        total.add_(torch.stack([value.to(torch.float64) for value in sums]))

    (small,) = demonstrations([SMALL_PAIR])
    make_passes(objective, passes, make, PassShape(forwards=0, has_gradient=True, small=small))
    return total
