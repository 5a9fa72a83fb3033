"""Faults by seed: what becomes of one call to the outside, and how often.

A call is lost before it arrives, or its answer is; it arrives late, its answer does, or it arrives twice; the process
that makes it dies before or after. Calls that are late let everything else go on meanwhile, which is how calls and
answers are reordered.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random


class Crash(BaseException):
    """The process is gone: no handler of the service catches it."""


class Fate(Enum):
    NONE = auto()
    LOST_REQUEST = auto()
    LOST_ANSWER = auto()
    LATE_REQUEST = auto()
    LATE_ANSWER = auto()
    TWICE = auto()
    CRASH_BEFORE = auto()
    CRASH_AFTER = auto()


LOSSES = (Fate.LOST_REQUEST, Fate.LOST_ANSWER)
DELAYS = (Fate.LATE_REQUEST, Fate.LATE_ANSWER)
CRASHES = (Fate.CRASH_BEFORE, Fate.CRASH_AFTER)


@dataclass(slots=True)
class Faults:
    """Rates are a call's; `are_on` ends all of them, and is how a history calms down."""

    rng: Random
    loss_rate: float = 0.0
    delay_rate: float = 0.0
    twice_rate: float = 0.0
    crash_rate: float = 0.0
    are_on: bool = True
    calls: int = 0
    changes: int = 0
    crash_after_change: int | None = None
    """Die after the call that is this one of those that change anything, counted from 1."""
    planned: dict[int, Fate] = field(default_factory=dict)
    """By the number of the call, counted from 1, whatever the rates are."""

    def draw(self, *, changes: bool) -> Fate:
        """`changes`: the call leaves something behind."""
        if not self.are_on:
            return Fate.NONE
        self.calls += 1
        self.changes += changes
        if changes and self.changes == self.crash_after_change:
            return Fate.CRASH_AFTER
        if self.calls in self.planned:
            return self.planned.pop(self.calls)
        left = self.rng.random()
        for rate, fates in (
            (self.loss_rate, LOSSES),
            (self.delay_rate, DELAYS),
            (self.twice_rate, (Fate.TWICE,)),
            (self.crash_rate, CRASHES),
        ):
            if left < rate:
                return self.rng.choice(fates)
            left -= rate
        return Fate.NONE

    def plan(self, fate: Fate, *, after_calls: int) -> None:
        self.planned[self.calls + 1 + after_calls] = fate


def draw_faults(rng: Random) -> Faults:
    """A history has some kinds of faults, seldom all: many at once hide each other."""

    def rate(most: float) -> float:
        return rng.uniform(0, most) if rng.random() < 0.5 else 0.0

    return Faults(rng, loss_rate=rate(0.1), delay_rate=rate(0.08), twice_rate=rate(0.1), crash_rate=rate(0.04))
