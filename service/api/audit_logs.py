"""`/v1/organization/audit_logs`, under an admin key."""

from fastapi import APIRouter

from schemas.audit_logs import AuditLog
from schemas.pages import BoundedPage
from service.api.audit_query import AuditLogsPage
from service.api.auth import Org
from service.organization import audit

router = APIRouter(prefix="/organization/audit_logs", tags=["organization"])


@router.get("")
def list_audit_logs(org: Org, page: AuditLogsPage) -> BoundedPage[AuditLog]:
    """List who changed what of the organization, newest first."""
    return audit.list_audit_logs(org, matching=page.matching, after=page.after, before=page.before, limit=page.limit)
