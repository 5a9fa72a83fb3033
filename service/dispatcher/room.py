"""What is left of the cluster while a round of claims takes from it, and what a job lacks of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from service.backends.backend import Capacity
from service.db.preemption import Candidate
from service.db.queue import Held
from service.dispatcher.requirements import Requirements, cpu_places, has_room


@dataclass(frozen=True, slots=True)
class Shortage:
    """What must be given back before a job can run."""

    jobs: int
    gpus: int
    cpu_runs: int

    @property
    def is_none(self) -> bool:
        return max(self.jobs, self.gpus, self.cpu_runs) <= 0

    def left_after(self, stopped: Iterable[Candidate]) -> "Shortage":
        gone = list(stopped)
        return Shortage(
            self.jobs - len(gone),
            self.gpus - sum(candidate.gpus for candidate in gone),
            self.cpu_runs - sum(candidate.gpus == 0 for candidate in gone),
        )

    def is_eased_by(self, candidate: Candidate) -> bool:
        return self.jobs > 0 or (self.gpus > 0 if candidate.gpus else self.cpu_runs > 0)


@dataclass(slots=True)
class Room:
    capacity: Capacity
    held: Held
    """By all open runs."""
    waiting_kinds: set[bool] = field(default_factory=set)
    """Whether of GPU jobs, of CPU jobs, one waits for more room: it keeps what there is from smaller ones."""

    def has_place_for(self, needed: Requirements) -> bool:
        return not self.is_kept_from(needed) and has_room(needed, self.held, self.capacity)

    def is_kept_from(self, needed: Requirements) -> bool:
        return (needed.gpus > 0) in self.waiting_kinds

    def keep_for(self, needed: Requirements) -> None:
        self.waiting_kinds.add(needed.gpus > 0)

    def take(self, needed: Requirements) -> None:
        self.held = Held(self.held.gpus + needed.gpus, self.held.cpu_runs + (needed.gpus == 0))

    @property
    def is_kept_from_all(self) -> bool:
        return len(self.waiting_kinds) == 2


def shortage_of(needed: Requirements, staying: Held, capacity: Capacity) -> Shortage:
    """What it lacks beside the runs that nobody has told to stop."""
    if needed.gpus:
        return Shortage(0, staying.gpus + needed.gpus - capacity.gpus, 0)
    return Shortage(0, 0, staying.cpu_runs + 1 - cpu_places(capacity))
