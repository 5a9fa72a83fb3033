"""What a pass over pairs yields, and the two ways to get there (padded rows, packed rows) as one protocol.

B = pairs, N = completion tokens that are predicted: the chosen sides of all pairs, then the rejected ones, end to end.
V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trainers.data.chat_tokens import PairTokens
from trainers.dpo.log_probs import sum_by_side


class CompletionStates(Protocol):
    """The model's state at every position that predicts a completion token."""

    @property
    def lengths(self) -> Tensor:
        """Predicted tokens of each side: B chosen ones, then B rejected ones."""

    @property
    def targets(self) -> Tensor:
        """The tokens to predict, (N,)."""

    def log_probs(self) -> tuple[Tensor, Tensor]:
        """Return log p(target) (N,) float32, differentiable, and whether the target is the argmax (N,)."""

    def logits(self, start: int, end: int) -> Tensor:
        """Return the logits of positions `start` to `end`, (end - start, V)."""


class Layout(Protocol):
    """A way to lay pairs out for the model."""

    def states(self, pairs: Sequence[PairTokens]) -> CompletionStates: ...


@dataclass(frozen=True, slots=True)
class SideScores:
    """One side of B pairs."""

    log_probs_B: Tensor
    correct_B: Tensor
    """Tokens that are the policy's argmax, float32."""
    predicted_B: Tensor
    """Tokens that were predicted."""


@dataclass(frozen=True, slots=True)
class PairScores:
    chosen: SideScores
    rejected: SideScores


def score(layout: Layout, pairs: Sequence[PairTokens]) -> PairScores:
    """Return each completion's log-probability under the model as it is now."""
    states = layout.states(pairs)
    return gather_scores(*states.log_probs(), states.lengths)


def gather_scores(log_probs_N: Tensor, correct_N: Tensor, lengths: Tensor) -> PairScores:
    sums = sum_by_side(log_probs_N, lengths).chunk(2)
    correct = sum_by_side(correct_N, lengths).chunk(2)
    predicted = lengths.chunk(2)
    chosen, rejected = (SideScores(*side) for side in zip(sums, correct, predicted, strict=True))
    return PairScores(chosen, rejected)
