"""When a delivery that failed is tried again: soon at first, then more and more seldom, for three days."""

from datetime import datetime, timedelta

FIRST_DELAY = timedelta(seconds=5)
GROWTH = 4
LONGEST_DELAY = timedelta(hours=6)
GIVE_UP_AFTER = timedelta(days=3)
JITTER = (0.8, 1.2)
"""Factors between which a delay is drawn: an endpoint that comes back is not met by all at once."""


def next_attempt(*, attempts: int, created_at: datetime, now: datetime, jitter: float) -> datetime | None:
    """When to try after this many attempts, or None to give up."""
    growth = GROWTH ** min(attempts - 1, 20)
    at = now + min(FIRST_DELAY * growth, LONGEST_DELAY) * jitter
    return at if at <= created_at + GIVE_UP_AFTER else None
