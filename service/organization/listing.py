"""A page of a list, from one item more than it shows.

Its type is quoted: Pydantic would build a schema of the bound, which is none of its own.
"""

from typing import Protocol, TypeVar

from schemas.pages import BoundedPage


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Identified)


def bounded_page(items: list[Item], *, limit: int) -> "BoundedPage[Item]":
    data = items[:limit]
    return BoundedPage(
        object="list",
        data=data,
        has_more=len(items) > limit,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )
