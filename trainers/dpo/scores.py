"""What a pass over pairs yields, and the two ways to get there (padded rows, packed rows) as one protocol.

B = pairs, N = completion tokens that are predicted: the chosen sides of all pairs, then the rejected ones, end to end.
V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
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

    def log_probs_and_collisions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same, and log Σ p² over the vocabulary (N,) float32, without gradient."""

    def logits(self, start: int, end: int) -> Tensor:
        """Return the logits of positions `start` to `end`, (end - start, V)."""


class Layout(Protocol):
    """A way to lay pairs out for the model."""

    @property
    def pads(self) -> bool:
        """Whether each row of a pass is as long as its longest."""

    def states(self, pairs: Sequence[PairTokens]) -> CompletionStates: ...


@dataclass(frozen=True, slots=True)
class SideScores:
    """One side of B pairs."""

    log_probs_B: Tensor
    """With the tail weighed by `ld_alpha`, where there is one."""
    whole_log_probs_B: Tensor
    """With every token counting once."""
    correct_B: Tensor
    """Tokens that are the policy's argmax, float32."""
    predicted_B: Tensor
    """Tokens that were predicted."""
    alignment_B: Tensor | None
    """Mean of log p(token) - log Σ p², without gradient; where WPO asks for it."""


@dataclass(frozen=True, slots=True)
class PairScores:
    chosen: SideScores
    rejected: SideScores


def score(
    layout: Layout, pairs: Sequence[PairTokens], *, ld_alpha: float | None = None, with_alignment: bool = False
) -> PairScores:
    """Return each completion's log-probability under the model as it is now."""
    states = layout.states(pairs)
    if not with_alignment:
        return gather_scores(*states.log_probs(), lengths=states.lengths, ld_alpha=ld_alpha)
    log_probs_N, correct_N, log_collisions_N = states.log_probs_and_collisions()
    return gather_scores(log_probs_N, correct_N, log_collisions_N, lengths=states.lengths, ld_alpha=ld_alpha)


def gather_scores(
    log_probs_N: Tensor,
    correct_N: Tensor,
    log_collisions_N: Tensor | None = None,
    *,
    lengths: Tensor,
    ld_alpha: float | None = None,
) -> PairScores:
    whole = sum_by_side(log_probs_N, lengths)
    weighed = whole if ld_alpha is None else sum_by_side(_weigh_tail(log_probs_N, lengths, ld_alpha), lengths)
    alignment = None
    if log_collisions_N is not None:
        alignment = sum_by_side(log_probs_N.detach() - log_collisions_N, lengths) / lengths.clamp(min=1)
    correct = sum_by_side(correct_N, lengths)
    pairs = len(lengths) // 2
    chosen, rejected = (
        SideScores(
            weighed[side], whole[side], correct[side], lengths[side], None if alignment is None else alignment[side]
        )
        for side in (slice(0, pairs), slice(pairs, None))
    )
    return PairScores(chosen, rejected)


def _weigh_tail(log_probs_N: Tensor, lengths: Tensor, ld_alpha: float) -> Tensor:
    """Multiply what lies past the length of the pair's shorter side by `ld_alpha` (LD-DPO, arXiv:2409.06411)."""
    chosen, rejected = lengths.chunk(2)
    shared = torch.minimum(chosen, rejected).repeat(2)
    ends_N = (lengths.cumsum(0) - lengths + shared).repeat_interleave(lengths, output_size=len(log_probs_N))
    is_tail_N = torch.arange(len(log_probs_N), device=lengths.device) >= ends_N
    return torch.where(is_tail_N, ld_alpha * log_probs_N, log_probs_N)
