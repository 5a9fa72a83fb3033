"""Lists, newest first; `after` = the last id seen."""

from typing import Generic, Literal, Protocol, TypeVar

from schemas.base import Response

Item = TypeVar("Item")


class Page(Response, Generic[Item]):
    object: Literal["list"]
    data: list[Item]
    has_more: bool


class BoundedPage(Page[Item], Generic[Item]):
    """Files and checkpoints also name their ends; null when the page is empty."""

    first_id: str | None
    last_id: str | None


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=Identified)


def bounded_page(items: list[Listed], *, limit: int) -> "BoundedPage[Listed]":
    """The page of the first `limit` items, of which there is one more if there is a next page."""
    # The type is quoted: Pydantic would build a schema of the bound, which is none of its own.
    data = items[:limit]
    return BoundedPage(
        object="list",
        data=data,
        has_more=len(items) > limit,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )
