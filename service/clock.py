"""The clock, passed in wherever time decides something, so that tests can move it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns an aware UTC datetime."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def unix_seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def month_start(now: datetime) -> datetime:
    """The first instant of its calendar month, UTC."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month_start(now: datetime) -> datetime:
    return month_start(month_start(now) + timedelta(days=32))
