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
    sizes, known = StepSizes.of(pairs[index] for index in step), StepReference(objective, reference, step)
    total = torch.zeros(len(FIELDS), dtype=torch.float64, device=objective.device)

    def make(indices: Sequence[int]) -> None:
        batch = [pairs[index] for index in indices]
        reference_B2 = known.of(indices, batch)
        with objective.policy.with_dropout():
            scores = objective.score(batch)
        losses_B, sums = pair_losses(scores, reference_B2, batch, objective, sizes)
        torch.autograd.backward(losses_B.sum() / sizes.pairs)
        total.add_(sums)

    make_passes(objective, passes, make, PassShape(forwards=int(known.fills), has_gradient=True))
    known.keep()
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


class StepReference:
    """The reference of a step's passes: the table's, or computed pass by pass and taken to the table after the last.

    In a step that has pairs without one it is computed for all of them, known or not: a sharded base wants the same of
    every worker. The table is on the host, which would wait for the device if it took each pass's numbers at once.
    """

    def __init__(self, objective: Objective, table: ReferenceTable, step: Sequence[int]) -> None:
        self.fills = not table.knows(step)
        self._objective = objective
        self._table = table
        self._indices: list[int] = []
        self._found: list[Tensor] = []

    def of(self, indices: Sequence[int], batch: Sequence[PairTokens]) -> Tensor:
        """Return a pass's reference, (B, 2)."""
        objective = self._objective
        if not self.fills:
            return self._table.of(indices, device=objective.device)
        found_B2 = reference_log_probs(objective.policy, objective.layout, batch, objective.dpo.ld_alpha)
        self._indices += indices
        self._found.append(found_B2)
        return found_B2

    def keep(self) -> None:
        """Take what was computed to the table."""
        if self._found:
            self._table.keep(self._indices, torch.cat(self._found))
