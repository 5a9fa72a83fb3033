"""When a job whose step raised is tried again: later each time, and at some point not at all."""

from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
MOST_DOUBLINGS = 10
"""Beyond the longest delay. An outage of a day would double past what a float holds."""
MAX_FAILURES = 8
"""In a row, about two minutes: a bug, not a hiccup."""


def has_come(moment: datetime, *, now: datetime, longest_wait_s: float) -> bool:
    """Whether the wait is over. One longer than any is of a clock that has been set back since."""
    return now >= moment or moment - now > timedelta(seconds=longest_wait_s)


@dataclass(frozen=True, slots=True)
class _Trouble:
    tries: int
    failures: int
    retry_at: datetime


class Backoff:
    """Kept in memory: a restarted dispatcher tries everything at once again."""

    def __init__(self) -> None:
        self._troubles: dict[str, _Trouble] = {}

    def may_try(self, job_id: str, *, now: datetime) -> bool:
        trouble = self._troubles.get(job_id)
        return trouble is None or has_come(trouble.retry_at, now=now, longest_wait_s=LONGEST_DELAY_S)

    def note_failure(self, job_id: str, *, now: datetime, is_outage: bool = False) -> int:
        """Return how many failures there were, outages aside, since it last went well."""
        former = self._troubles.get(job_id, _Trouble(tries=0, failures=0, retry_at=now))
        failures = former.failures + (not is_outage)
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(former.tries, MOST_DOUBLINGS))
        self._troubles[job_id] = _Trouble(former.tries + 1, failures, now + timedelta(seconds=delay_s))
        return failures

    def forget(self, job_id: str) -> None:
        """It went well, or was given up."""
        self._troubles.pop(job_id, None)
