"""Projects as an administrator sees them."""

from datetime import datetime

from pydantic import JsonValue
from sqlalchemy.orm import Session

from schemas.ids import ProjectId
from schemas.organization import (
    CreateProjectRequest,
    OrganizationProject,
    ProjectUsage,
    UpdateProjectRequest,
)
from schemas.pages import BoundedPage, bounded_page
from service.clock import unix_seconds
from service.cursors import check_cursor
from service.db.once import OncePer, create_once
from service.db.projects import ProjectRepository
from service.db.tables import ProjectRow
from service.identifiers import new_project_id
from service.nearest import shown
from service.organization.audit import record
from service.organization.organization import Organization
from service.organization.organization_errors import ProjectArchived, ProjectNotFound
from service.organization.quotas import measure_usage, present_quotas, set_quotas


def create_project(
    organization: Organization, request: CreateProjectRequest, *, once_per: OncePer | None
) -> OrganizationProject:
    """Raises: IdempotencyKeyReused."""
    now = organization.clock()
    row = ProjectRow(id=new_project_id(), name=request.name, created_at=now, archived_at=None)
    quotas = set_quotas(row, request.quotas)

    def create(session: Session) -> OrganizationProject:
        ProjectRepository(session).add(row)
        data: dict[str, JsonValue] = {"name": row.name, "title": row.name, **({"quotas": quotas} if quotas else {})}
        record(session, organization, "project.created", row.id, project=row, data=data)
        return _present(row, measure_usage(session, row, now=now))

    return create_once(organization.database, once_per, create, answer_type=OrganizationProject, now=now)


def find_project(organization: Organization, project_id: str) -> OrganizationProject:
    """Raises: ProjectNotFound."""
    with organization.database.read() as session:
        row = require_project(session, project_id)
        return _present(row, measure_usage(session, row, now=organization.clock()))


def list_projects(
    organization: Organization, *, after: str | None, limit: int, with_archived: bool
) -> BoundedPage[OrganizationProject]:
    """Newest first. Raises: InvalidRequest."""
    check_cursor(after, prefix="proj_", kind="a project")
    with organization.database.read() as session:
        rows = ProjectRepository(session).list_after(after=after, limit=limit + 1, with_archived=with_archived)
    return bounded_page([_present(row) for row in rows], limit=limit)


def update_project(organization: Organization, project_id: str, request: UpdateProjectRequest) -> OrganizationProject:
    """Raises: ProjectNotFound, ProjectArchived."""
    with organization.database.write() as session:
        require_active_project(session, project_id)
        row = ProjectRepository(session).lock(ProjectId(project_id))  # a claim may note used-up GPU-hours meanwhile
        changes = _change(row, request)
        if changes:
            record(session, organization, "project.updated", row.id, project=row, changes=changes)
        return _present(row, measure_usage(session, row, now=organization.clock()))


def _change(row: ProjectRow, request: UpdateProjectRequest) -> dict[str, JsonValue]:
    """Returns what is new, for the audit log."""
    changes: dict[str, JsonValue] = {}
    if request.name is not None and request.name != row.name:
        changes["title"] = row.name = request.name
    quotas = set_quotas(row, request.quotas)
    return changes | ({"quotas": quotas} if quotas else {})


def archive_project(organization: Organization, project_id: str) -> OrganizationProject:
    """Close it: its keys open nothing any more, its jobs run to their end. Again changes nothing.

    Raises: ProjectNotFound.
    """
    with organization.database.write() as session:
        row = require_project(session, project_id)
        now = organization.clock()
        if row.archived_at is None:
            row.archived_at = now
            record(session, organization, "project.archived", row.id, project=row)
        return _present(row, measure_usage(session, row, now=now))


def require_project(session: Session, project_id: str) -> ProjectRow:
    """Raises: ProjectNotFound."""
    row = ProjectRepository(session).find(ProjectId(project_id))
    if row is None:
        raise ProjectNotFound(
            f"The project {shown(project_id)} does not exist; GET /v1/organization/projects lists those that do"
        )
    return row


def require_active_project(session: Session, project_id: str) -> ProjectRow:
    """Raises: ProjectNotFound, ProjectArchived."""
    row = require_project(session, project_id)
    if row.archived_at is not None:
        raise ProjectArchived(f"The project {row.id} is archived, and stays so; create a new one")
    return row


def _present(row: ProjectRow, usage: ProjectUsage | None = None) -> OrganizationProject:
    archived_at: datetime | None = row.archived_at
    return OrganizationProject(
        id=row.id,
        object="organization.project",
        name=row.name,
        created_at=unix_seconds(row.created_at),
        archived_at=None if archived_at is None else unix_seconds(archived_at),
        status="active" if archived_at is None else "archived",
        quotas=present_quotas(row),
        usage=usage,
    )
