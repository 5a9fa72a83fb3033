"""When a job whose step raised is tried again: later each time, and at some point not at all."""

from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
MAX_FAILURES = 8
"""In a row, about two minutes: a bug, not a hiccup."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    failures: int
    retry_at: datetime


class Backoff:
    """Kept in memory: a restarted dispatcher tries everything at once again."""

    def __init__(self) -> None:
        self._troubles: dict[str, _Trouble] = {}

    def may_try(self, job_id: str, *, now: datetime) -> bool:
        trouble = self._troubles.get(job_id)
        return trouble is None or now >= trouble.retry_at

    def note_failure(self, job_id: str, *, now: datetime) -> int:
        """Return how many failures there were in a row."""
        former = self._troubles.get(job_id)
        failures = former.failures + 1 if former else 1
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (failures - 1))
        self._troubles[job_id] = _Trouble(failures, now + timedelta(seconds=delay_s))
        return failures

    def note_success(self, job_id: str) -> None:
        self._troubles.pop(job_id, None)
