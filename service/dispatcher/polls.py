"""When a run's folder is looked into again: soon after news, seldom while nothing comes.

On a bucket each look is two requests. That a run has ended says the backend, at every tick, and then its folder is read
at once: what waits here is only news of a run that goes on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.ids import RunId
from service.dispatcher.backoff import has_come

FOLDER_POLL_S = 0.0
"""At each tick."""
BUCKET_POLL_S = 2.0
QUIET_SHARE = 0.1
"""A look after a tenth of the time without news is late by a tenth of a step at most."""
LONGEST_S = 15.0


@dataclass(slots=True)
class _Looks:
    news_at: datetime
    """Or when it was first looked at."""
    due_at: datetime


class RunPolls:
    """Kept in memory: after a restart everything is looked at once."""

    def __init__(self, poll_s: float = FOLDER_POLL_S) -> None:
        """`poll_s`: between two looks at least."""
        self._poll_s = poll_s
        self._looks: dict[RunId, _Looks] = {}

    def is_due(self, run_id: RunId, *, now: datetime) -> bool:
        looks = self._looks.get(run_id)
        return looks is None or has_come(looks.due_at, now=now, longest_wait_s=max(LONGEST_S, self._poll_s))

    def note_look(self, run_id: RunId, *, has_news: bool, now: datetime) -> None:
        former = self._looks.get(run_id)
        news_at = now if has_news or former is None else min(now, former.news_at)  # the clock may have been set back
        quiet_s = (now - news_at).total_seconds()
        wait_s = max(self._poll_s, min(LONGEST_S, quiet_s * QUIET_SHARE))
        self._looks[run_id] = _Looks(news_at, now + timedelta(seconds=wait_s))

    def forget(self, run_id: RunId) -> None:
        self._looks.pop(run_id, None)
