"""The audit log: each change of the organization is recorded in its own transaction."""

from pydantic import JsonValue
from sqlalchemy.orm import Session

from schemas.audit_event_types import AuditEventType
from schemas.audit_logs import AuditActor, AuditActorKey, AuditDetails, AuditLog, AuditProject
from schemas.pages import BoundedPage, bounded_page, bounded_page_before
from service.clock import unix_seconds
from service.cursors import check_cursor
from service.db.audit_logs import AuditFilter, AuditLogRepository
from service.db.tables import AuditLogRow, ProjectRow
from service.identifiers import new_audit_log_id
from service.organization.organization import Organization

DETAILS = tuple(name for name, field in AuditLog.model_fields.items() if field.alias is not None)


def record(
    session: Session,
    organization: Organization,
    event: AuditEventType,
    subject_id: str,
    *,
    project: ProjectRow | None,
    data: dict[str, JsonValue] | None = None,
    changes: dict[str, JsonValue] | None = None,
) -> None:
    """`data`: what the subject was created with; `changes`: what was asked to be changed of it."""
    details = AuditDetails(id=subject_id, data=data, changes_requested=changes)
    entry = AuditLogRow(
        id=new_audit_log_id(),
        effective_at=organization.clock(),
        type=event,
        actor_key_id=organization.actor,
        project_id=None if project is None else project.id,
        project_name=None if project is None else project.name,
        details=details.model_dump(mode="json"),
        subject_id=subject_id,
    )
    AuditLogRepository(session).add(entry)


def list_audit_logs(
    organization: Organization, *, matching: AuditFilter, after: str | None, before: str | None, limit: int
) -> BoundedPage[AuditLog]:
    """Newest first. Raises: InvalidRequest."""
    check_cursor(after, prefix="audit_log-", kind="an entry")
    check_cursor(before, prefix="audit_log-", kind="an entry", param="before")
    with organization.database.read() as session:
        entries = AuditLogRepository(session)
        rows = entries.list_after(matching=matching, after=after, before=before, limit=limit + 1)
    page = bounded_page if before is None else bounded_page_before
    return page([_present(row) for row in rows], limit=limit)


def _present(row: AuditLogRow) -> AuditLog:
    told = {name: row.details if name == row.type.replace(".", "_") else None for name in DETAILS}
    project = None
    if row.project_id is not None:
        project = AuditProject(id=row.project_id, name=row.project_name or "")
    return AuditLog.model_validate(
        {
            "id": row.id,
            "object": "organization.audit_log",
            "type": row.type,
            "effective_at": unix_seconds(row.effective_at),
            "actor": AuditActor(type="api_key", api_key=AuditActorKey(id=row.actor_key_id, type="service_account")),
            "project": project,
        }
        | {AuditLog.model_fields[name].alias or name: value for name, value in told.items()}
    )
