"""Lists, newest first; `after` = the last id seen."""

from typing import Generic, Literal, TypeVar

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
