"""The query parameters of lists."""

from typing import Annotated, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.files import Purpose
from schemas.fine_tuning import MAX_METADATA_PAIRS
from service.api.validation_messages import UnknownField
from service.errors import InvalidRequest
from service.files.catalog import FileQuery
from service.jobs.queries import JobFilter
from service.nearest import did_you_mean, shown

After = Annotated[str | None, Field(max_length=128, description="The last id of the page before.")]
Before = Annotated[str | None, Field(max_length=128, description="The first id of the page after.")]
Limit = Annotated[int, Field(ge=1, le=100)]
UnixSeconds = Annotated[int, Field(ge=0, le=32_503_680_000)]
"""Up to the year 3000."""


class PageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    after: After = None
    limit: Limit = 20


class CheckpointsQuery(PageQuery):
    limit: Limit = 10


class FilesQuery(PageQuery):
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    purpose: Purpose | None = None


class ProjectsQuery(PageQuery):
    include_archived: bool = False


class RateLimitsQuery(PageQuery):
    before: Before = None
    limit: Limit = 100


class AdminKeysQuery(PageQuery):
    order: Literal["asc", "desc"] = "desc"


class ProjectKeysQuery(PageQuery):
    owner_project_access: Literal["active", "inactive", "any"] = "any"
    """A project's keys share its state: one of the two lists is empty."""


class JobsQuery(PageQuery):
    """Its extra names are the filter, `metadata[key]=value`, or `metadata=null` for jobs without any."""

    model_config = ConfigDict(extra="allow", frozen=True)


def _file_query(query: Annotated[FilesQuery, Query()]) -> FileQuery:
    return FileQuery(query.purpose, query.after, query.limit, newest_first=query.order == "desc")


def _job_filter(query: Annotated[JobsQuery, Query()]) -> JobFilter:
    metadata: dict[str, str] = {}
    without_metadata = False
    for name, value in (query.model_extra or {}).items():
        match name:
            case "metadata" if value == "null":
                without_metadata = True
            case _ if name.startswith("metadata[") and name.endswith("]") and isinstance(value, str):
                metadata[name.removeprefix("metadata[").removesuffix("]")] = value
            case _:
                raise _unknown_filter(name)
    if len(metadata) > MAX_METADATA_PAIRS:  # each is a condition of the query
        message = f"The filter has {len(metadata)} pairs of metadata, and no job has more than {MAX_METADATA_PAIRS}"
        raise InvalidRequest(f"{message}; give fewer", param="metadata")
    return JobFilter(metadata, without_metadata)


FilesPage = Annotated[FileQuery, Depends(_file_query)]
JobsFilter = Annotated[JobFilter, Depends(_job_filter)]
JobsPage = Annotated[JobsQuery, Query()]
ProjectsPage = Annotated[ProjectsQuery, Query()]
RateLimitsPage = Annotated[RateLimitsQuery, Query()]
AdminKeysPage = Annotated[AdminKeysQuery, Query()]
ProjectKeysPage = Annotated[ProjectKeysQuery, Query()]
PlainPage = Annotated[PageQuery, Query()]
EventsPage = Annotated[PageQuery, Query()]
CheckpointsPage = Annotated[CheckpointsQuery, Query()]


def _unknown_filter(name: str) -> InvalidRequest:
    if name.startswith("metadata"):
        return InvalidRequest(
            f"The filter {shown(name)} is not one; give metadata[KEY]=VALUE once, or metadata=null", param="metadata"
        )
    remedy = did_you_mean(name, [*JobsQuery.model_fields, "metadata[KEY]"], kind="known names")
    return UnknownField(f"{shown(name)} is not a known name here; {remedy}", param=name)
