"""Days (UTC) as pages of buckets: a page's cursor is the day that the next one begins with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from schemas.usage import Bucket, BucketPage
from service.clock import unix_seconds
from service.errors import InvalidRequest

DAY = timedelta(days=1)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Day:
    start: datetime
    end: datetime
    """Exclusive; of the last one the time that was asked for, or now."""


@dataclass(frozen=True, slots=True)
class Span:
    start: datetime
    end: datetime
    limit: int
    page: str | None


def bucket_page(span: Span, measure: Callable[[Day], list[Result]]) -> BucketPage[Result]:
    """Raises: InvalidRequest, for a page that is none."""
    days = list(_days(span))
    data: list[Bucket[Result]] = [
        Bucket(
            object="bucket",
            start_time=unix_seconds(day.start),
            end_time=unix_seconds(_midnight(day.start) + DAY),
            results=measure(day),
        )
        for day in days[: span.limit]
    ]
    following = days[span.limit :]
    next_page = f"page_{unix_seconds(following[0].start)}" if following else None
    return BucketPage(object="page", data=data, has_more=bool(following), next_page=next_page)


def _days(span: Span) -> Iterator[Day]:
    """One more than fits a page, where there is one."""
    start = _first_day(span)
    for _ in range(span.limit + 1):
        if start >= span.end:
            return
        yield Day(max(start, span.start), min(start + DAY, span.end))
        start += DAY


def _first_day(span: Span) -> datetime:
    first = _midnight(span.start)
    if span.page is None:
        return first
    seconds = span.page.removeprefix("page_")
    is_ours = span.page.startswith("page_") and seconds.isdecimal() and len(seconds) <= 11
    if not is_ours or int(seconds) % DAY.total_seconds() or int(seconds) < first.timestamp():
        raise InvalidRequest(
            "page is none of this list's; give next_page of the answer before, or nothing", param="page"
        )
    return datetime.fromtimestamp(int(seconds), UTC)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
