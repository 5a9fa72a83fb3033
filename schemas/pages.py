"""Lists, newest first; `after` = the last id seen."""

from typing import Generic, Literal, Protocol, TypeVar

from schemas.base import Response

Item = TypeVar("Item")


class Page(Response, Generic[Item]):
    object: Literal["list"]
    data: list[Item]
    has_more: bool


class BoundedPage(Page[Item], Generic[Item]):
    """A page that names its ends, too; null when it is empty."""

    first_id: str | None
    last_id: str | None


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=Identified)


def bounded_page(items: list[Listed], *, limit: int) -> "BoundedPage[Listed]":
    """The page of the first `limit` items, of which there is one more if there is a next page."""
    # The type is quoted: Pydantic would build a schema of the bound, which is none of its own.
    return _page(items[:limit], has_more=len(items) > limit)


def bounded_page_before(items: list[Listed], *, limit: int) -> "BoundedPage[Listed]":
    """The page of the last `limit` items, the nearest ones to a `before`, of which there is one more if any is left."""
    return _page(items[-limit:], has_more=len(items) > limit)


def _page(data: list[Listed], *, has_more: bool) -> "BoundedPage[Listed]":
    return BoundedPage(
        object="list",
        data=data,
        has_more=has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )
