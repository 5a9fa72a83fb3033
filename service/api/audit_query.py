"""The query of the audit log, as the SDK sends it: lists as `event_types[]=…`, times as `effective_at[gte]=…`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.audit_event_types import AskedEventType
from service.api.pages import After, Before, Limit, UnixSeconds
from service.db.audit_logs import AuditFilter
from service.errors import InvalidRequest

Several = Annotated[list[str], Field(max_length=100)]
SECOND = timedelta(seconds=1)


class AuditLogsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    after: After = None
    before: Before = None
    limit: Limit = 20
    event_types: list[AskedEventType] = Field(default_factory=list, alias="event_types[]", max_length=100)
    actor_ids: Several = Field(default_factory=list, alias="actor_ids[]")
    actor_emails: Several = Field(default_factory=list, alias="actor_emails[]")
    """Nobody here has one: naming any finds nothing."""
    tenant_only: bool = False
    project_ids: Several = Field(default_factory=list, alias="project_ids[]")
    resource_ids: Several = Field(default_factory=list, alias="resource_ids[]")
    later_than: UnixSeconds | None = Field(default=None, alias="effective_at[gt]")
    since: UnixSeconds | None = Field(default=None, alias="effective_at[gte]")
    before_time: UnixSeconds | None = Field(default=None, alias="effective_at[lt]")
    until: UnixSeconds | None = Field(default=None, alias="effective_at[lte]")


@dataclass(frozen=True, slots=True)
class AuditPage:
    matching: AuditFilter
    after: str | None
    before: str | None
    limit: int


def _audit_page(query: Annotated[AuditLogsQuery, Query()]) -> AuditPage:
    """Whole seconds are what an entry shows: `gt` means from the next one on. Raises: InvalidRequest."""
    if query.tenant_only:
        raise InvalidRequest(
            "tenant_only is true, and there is no tenant above this organization with events of its own; leave it out",
            param="tenant_only",
        )
    starts = [_moment(query.since), _next_second(query.later_than)]
    ends = [_moment(query.before_time), _next_second(query.until)]
    matching = AuditFilter(
        types=query.event_types,
        actor_key_ids=[*query.actor_ids, *query.actor_emails],
        project_ids=query.project_ids,
        subject_ids=query.resource_ids,
        since=max((start for start in starts if start is not None), default=None),
        before=min((end for end in ends if end is not None), default=None),
    )
    return AuditPage(matching, query.after, query.before, query.limit)


AuditLogsPage = Annotated[AuditPage, Depends(_audit_page)]


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _next_second(seconds: int | None) -> datetime | None:
    moment = _moment(seconds)
    return None if moment is None else moment + SECOND
