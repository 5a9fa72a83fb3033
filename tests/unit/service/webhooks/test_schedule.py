"""Retries: soon, then seldom, then no more."""

from datetime import UTC, datetime, timedelta

import pytest

from service.webhooks.schedule import GIVE_UP_AFTER, next_attempt

START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempts", "delay"),
    [
        (1, timedelta(seconds=5)),
        (2, timedelta(seconds=20)),
        (5, timedelta(minutes=21, seconds=20)),
        (30, timedelta(hours=6)),
    ],
)
def test_each_delay_is_longer_up_to_a_longest(attempts: int, delay: timedelta) -> None:
    assert next_attempt(attempts=attempts, created_at=START, now=START, jitter=1.0) == START + delay


def test_it_tries_for_three_days_and_then_gives_up() -> None:
    now, attempts = START, 1
    while (at := next_attempt(attempts=attempts, created_at=START, now=now, jitter=1.2)) is not None:
        assert now < at <= START + GIVE_UP_AFTER
        now, attempts = at, attempts + 1
    assert now > START + GIVE_UP_AFTER - timedelta(hours=8)
    assert attempts < 25
