"""The guards of a running job: looked at with each evaluation, told when one fires; a stop's best adapter is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.run_layout import OUTCOME
from schemas.run_record import Outcome
from schemas.run_spec import RunSpec
from trainers.dpo.guard_messages import guard_event, why_best
from trainers.dpo.guards import Watch, look, replay
from trainers.dpo.progress import Progress, adapter_bytes
from trainers.events import EventLog
from trainers.models.lora import Policy
from trainers.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """A guard ended the run."""

    action: Literal["stop", "pause"]
    best_step: int
    why_best: str


class Guarding:
    def __init__(self, spec: RunSpec, events: EventLog, earlier: Sequence[RunFolder]) -> None:
        self.verdict: GuardVerdict | None = None
        self._guards = spec.guards
        self._beta = spec.dpo.beta
        self._events = events
        self._watch = Watch()
        self._resumed_after = _paused_steps(earlier) if spec.guards else frozenset()

    def look(self, progress: Progress, policy: Policy) -> None:
        """Take in the newest step of the history, if it was evaluated."""
        evaluation = progress.history[-1].evaluation
        if self._guards is None or evaluation is None:
            return
        self._watch = look(self._watch, evaluation, self._guards, beta=self._beta)
        if self._guards.action == "stop" and self._watch.best and self._watch.best.step == self._watch.step:
            progress.best_adapter = adapter_bytes(policy)
        if self._watch.fired:
            self._events.tell(guard_event(self._watch, self._guards.action))
        self._judge()

    def replay(self, progress: Progress) -> None:
        """Take in the whole history of a checkpoint; what fired at its last step still has to be carried out."""
        if self._guards is None:
            return
        evaluations = [entry.evaluation for entry in progress.history if entry.evaluation is not None]
        self._watch = replay(evaluations, self._guards, beta=self._beta)
        if self._watch.step == progress.step:
            self._judge()

    def _judge(self) -> None:
        """A pause that an earlier attempt has carried out is over: the user has resumed the job since."""
        assert self._guards is not None
        action, best = self._guards.action, self._watch.best
        is_over = action == "pause" and self._watch.step in self._resumed_after
        if self._watch.fired and action != "warn" and not is_over and best is not None:
            self.verdict = GuardVerdict(action, best.step, why_best(best))


def _paused_steps(earlier: Sequence[RunFolder]) -> frozenset[int]:
    """Where guards paused the job before this attempt."""
    outcomes = [Outcome.model_validate_json(folder.read(OUTCOME)) for folder in earlier if folder.exists(OUTCOME)]
    return frozenset(outcome.steps for outcome in outcomes if outcome.status == "paused")
