"""Rate limits of a project: one entry a base model, for the jobs created on it, and one for requests of any kind."""

from collections.abc import Iterable, Sequence

from schemas.ids import ProjectId
from schemas.organization import NO_LIMIT, ProjectRateLimit, UpdateRateLimitRequest
from schemas.pages import BoundedPage, bounded_page, bounded_page_before
from service.cursors import unknown_cursor
from service.db.projects import ProjectRepository
from service.db.rate_limits import ALL_REQUESTS, RateLimitRepository
from service.db.tables import RateLimitRow
from service.errors import InvalidRequest
from service.nearest import did_you_mean, shown
from service.organization.audit import record
from service.organization.organization import Organization
from service.organization.organization_errors import RateLimitNotFound
from service.organization.projects import require_active_project, require_project

PREFIX = "rl-"


def list_rate_limits(
    organization: Organization,
    project_id: str,
    models: Iterable[str],
    *,
    after: str | None,
    before: str | None,
    limit: int,
) -> BoundedPage[ProjectRateLimit]:
    """By name, `*` first; `models`: the base models there are. Raises: ProjectNotFound, InvalidRequest."""
    with organization.database.read() as session:
        project = require_project(session, project_id)
        rows = RateLimitRepository(session).list_of_project(ProjectId(project.id))
    entries = [_present(model, rows.get(model)) for model in (ALL_REQUESTS, *sorted(models))]
    start = 0 if after is None else _place(after, entries, param="after") + 1
    if before is None:
        return bounded_page(entries[start:], limit=limit)
    return bounded_page_before(entries[start : _place(before, entries, param="before")], limit=limit)


def _place(rate_limit_id: str, entries: Sequence[ProjectRateLimit], *, param: str) -> int:
    ids = [entry.id for entry in entries]
    if rate_limit_id not in ids:
        raise unknown_cursor(rate_limit_id, kind="rate limit", param=param)
    return ids.index(rate_limit_id)


def update_rate_limit(
    organization: Organization,
    project_id: str,
    rate_limit_id: str,
    request: UpdateRateLimitRequest,
    models: Iterable[str],
) -> ProjectRateLimit:
    """Raises: ProjectNotFound, ProjectArchived, RateLimitNotFound, InvalidRequest."""
    model = _require_model(rate_limit_id, models)
    _refuse_token_limit(request.max_tokens_per_1_minute)
    with organization.database.write() as session:
        project = require_active_project(session, project_id)
        ProjectRepository(session).lock(ProjectId(project.id))  # two first updates at once would both add the row
        limits = RateLimitRepository(session)
        row = limits.find(ProjectId(project.id), model)
        if row is None:
            row = RateLimitRow(project_id=project.id, model=model)
            limits.add(row)
        changes = request.model_dump(exclude_none=True, exclude={"max_tokens_per_1_minute"})
        for name, value in changes.items():
            setattr(row, name, None if value == NO_LIMIT else value)
        if changes:
            record(session, organization, "rate_limit.updated", rate_limit_id, project=project, changes=changes)
        return _present(model, row)


def _require_model(rate_limit_id: str, models: Iterable[str]) -> str:
    known = {f"{PREFIX}{model}": model for model in (ALL_REQUESTS, *models)}
    if rate_limit_id not in known:
        remedy = did_you_mean(rate_limit_id, known, kind="rate limits")
        raise RateLimitNotFound(f"The rate limit {shown(rate_limit_id)} does not exist; {remedy}")
    return known[rate_limit_id]


def _refuse_token_limit(limit: int | None) -> None:
    if limit not in (None, NO_LIMIT):
        raise InvalidRequest(
            f"max_tokens_per_1_minute is {limit}, and tokens are not limited here; leave it out, or give {NO_LIMIT} "
            "as it is shown",
            param="max_tokens_per_1_minute",
        )


def _present(model: str, row: RateLimitRow | None) -> ProjectRateLimit:
    return ProjectRateLimit(
        id=f"{PREFIX}{model}",
        object="project.rate_limit",
        model=model,
        max_requests_per_1_minute=(row and row.max_requests_per_1_minute) or NO_LIMIT,
        max_requests_per_1_day=(row and row.max_requests_per_1_day) or NO_LIMIT,
        max_tokens_per_1_minute=NO_LIMIT,
    )
