"""What a job's guards see at each evaluation, when one fires, and which adapter is the best so far. Pure.

A guard is breached at an evaluation, and fires once it was breached at `patience` evaluations in a row; a warning is
told once an episode. A pause is the user's question: a resumed run counts anew. All follows from the evaluations in
their order, so a resumed run, which replays those of its checkpoint, fires where the unbroken one does.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.run_record import EvaluationMetrics
from schemas.run_spec import GuardParameters

GuardName = Literal["max_kl", "min_chosen_logp_ratio", "max_valid_loss_rise"]


@dataclass(frozen=True, slots=True)
class Breach:
    guard: GuardName
    measured: float
    """In nats: a token, a completion, or of loss above the lowest one."""
    limit: float
    in_a_row: int
    """Evaluations, this one included."""


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation with the lowest loss, of those without a breach where there is one."""

    step: int
    valid_loss: float
    is_breached: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen up to and including the evaluation of `step`."""

    step: int = 0
    lowest_loss: float = math.inf
    best: Best | None = None
    breaches: tuple[Breach, ...] = ()
    """At the newest evaluation."""
    fired: tuple[Breach, ...] = ()
    """Of those, the ones whose patience ended there."""


def look(before: Watch, evaluation: EvaluationMetrics, guards: GuardParameters, *, beta: float) -> Watch:
    """Return what is known after one more evaluation."""
    lowest_loss = min(before.lowest_loss, evaluation.valid_loss)
    may_go_on_counting = not (before.fired and guards.action == "pause")
    counts = {breach.guard: breach.in_a_row for breach in before.breaches} if may_go_on_counting else {}
    breaches = tuple(
        Breach(guard, measured, limit, counts.get(guard, 0) + 1)
        for guard, measured, limit in _measure(evaluation, guards, beta=beta, lowest_loss=lowest_loss)
        if (measured < limit if guard == "min_chosen_logp_ratio" else measured > limit)
    )
    return Watch(
        step=evaluation.step,
        lowest_loss=lowest_loss,
        best=_better(before.best, Best(evaluation.step, evaluation.valid_loss, bool(breaches))),
        breaches=breaches,
        fired=tuple(breach for breach in breaches if breach.in_a_row == guards.patience),
    )


def replay(evaluations: Iterable[EvaluationMetrics], guards: GuardParameters, *, beta: float) -> Watch:
    watch = Watch()
    for evaluation in evaluations:
        watch = look(watch, evaluation, guards, beta=beta)
    return watch


def _measure(
    evaluation: EvaluationMetrics, guards: GuardParameters, *, beta: float, lowest_loss: float
) -> Iterator[tuple[GuardName, float, float]]:
    if guards.max_kl is not None:
        yield "max_kl", evaluation.valid_kl, guards.max_kl
    if guards.min_chosen_logp_ratio is not None:
        # A reward is beta times the log-ratio: Sec. 4, arXiv:2305.18290.
        yield "min_chosen_logp_ratio", evaluation.valid_rewards_chosen / beta, guards.min_chosen_logp_ratio
    if guards.max_valid_loss_rise is not None:
        yield "max_valid_loss_rise", evaluation.valid_loss - lowest_loss, guards.max_valid_loss_rise


def _better(former: Best | None, latest: Best) -> Best:
    """Without a breach goes before with one, then the lower loss, then the earlier step."""
    if former is None or (latest.is_breached, latest.valid_loss) < (former.is_breached, former.valid_loss):
        return latest
    return former
