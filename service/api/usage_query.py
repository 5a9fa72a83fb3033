"""The queries of usage and costs, as the SDK sends them: lists as `project_ids[]=…`, times as Unix seconds."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.usage import LineItem
from service.api.pages import UnixSeconds
from service.clock import Clock
from service.errors import InvalidRequest
from service.organization.days import Span


class SpanQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    start_time: UnixSeconds
    end_time: UnixSeconds | None = None
    """Exclusive; absent: now."""
    bucket_width: Literal["1d"] = "1d"
    limit: Annotated[int, Field(ge=1, le=180)] = 7
    page: Annotated[str | None, Field(max_length=64)] = None
    project_ids: list[str] = Field(default_factory=list, alias="project_ids[]", max_length=100)

    def span(self, clock: Clock) -> Span:
        """Raises: InvalidRequest, where it ends before it starts."""
        start, now = datetime.fromtimestamp(self.start_time, UTC), clock()
        end = now if self.end_time is None else datetime.fromtimestamp(self.end_time, UTC)
        if self.end_time is not None and end <= start:
            raise InvalidRequest(
                "end_time is not after start_time; give a later one, or none for now", param="end_time"
            )
        return Span(start, min(end, now), self.limit, self.page)


class UsageQuery(SpanQuery):
    models: list[str] = Field(default_factory=list, alias="models[]", max_length=100)
    """Base models."""
    group_by: list[Literal["project_id", "model"]] = Field(default_factory=list, alias="group_by[]", max_length=2)


class CostsQuery(SpanQuery):
    line_items: list[LineItem] = Field(default_factory=list, alias="line_items[]", max_length=3)
    group_by: list[Literal["project_id", "line_item"]] = Field(default_factory=list, alias="group_by[]", max_length=2)


UsagePage = Annotated[UsageQuery, Query()]
CostsPage = Annotated[CostsQuery, Query()]
