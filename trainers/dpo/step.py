"""One optimizer step's gradients and sums, where each pair's loss is its own: pass by pass, forward and backward."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.objective import Objective, StepSizes, pair_losses
from trainers.dpo.reference import ReferenceTable, reference_log_probs
from trainers.dpo.rounds import PassShape, make_passes
from trainers.metrics import FIELDS


def accumulate_gradients(
    objective: Objective,
    passes: Sequence[Sequence[int]],
    pairs: Sequence[PairTokens],
    reference: ReferenceTable,
    *,
    step: Sequence[int],
) -> Tensor:
    """Add this worker's part of the gradient of the mean loss over the pairs of `step`, pass by pass.

    Returns: the sums over its pairs as a vector.
    """
    sizes, fills = StepSizes.of(pairs[index] for index in step), not reference.knows(step)
    total = torch.zeros(len(FIELDS), dtype=torch.float64, device=objective.device)

    def make(indices: Sequence[int]) -> None:
        batch = [pairs[index] for index in indices]
        if fills:
            fill_reference(objective, indices, batch, reference)
        with objective.policy.with_dropout():
            scores = objective.score(batch)
        losses_B, sums = pair_losses(scores, reference.of(indices, device=objective.device), batch, objective, sizes)
        torch.autograd.backward(losses_B.sum() / sizes.pairs)
        total.add_(sums)

    make_passes(objective, passes, make, PassShape(forwards=int(fills), has_gradient=True))
    return total


def score_without_dropout(
    objective: Objective, passes: Sequence[Sequence[int]], pairs: Sequence[PairTokens], reference: ReferenceTable
) -> Tensor:
    """Return the sums over pairs whose reference is known, as a vector; no gradient, no dropout."""
    sizes = StepSizes.of(pairs[index] for indices in passes for index in indices)
    total = torch.zeros(len(FIELDS), dtype=torch.float64, device=objective.device)

    def make(indices: Sequence[int]) -> None:
        batch = [pairs[index] for index in indices]
        known_B2 = reference.of(indices, device=objective.device)
        total.add_(pair_losses(objective.score(batch), known_B2, batch, objective, sizes)[1])

    with torch.no_grad():
        make_passes(objective, passes, make, PassShape(forwards=1, has_gradient=False))
    return total


def fill_reference(
    objective: Objective, indices: Sequence[int], batch: Sequence[PairTokens], reference: ReferenceTable
) -> None:
    """Compute the pass's reference. In a step that has pairs without one it is computed for all of them, known or not:
    a sharded base wants the same of every worker."""
    found_B2 = reference_log_probs(objective.policy, objective.layout, batch, objective.dpo.ld_alpha)
    reference.keep(indices, found_B2)
