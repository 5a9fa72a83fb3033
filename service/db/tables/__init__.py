"""The tables. `jobs` is the queue, `runs` the attempts, `run_events` what a user polls.

Timestamps are aware UTC. Constraints are named, so that migrations can name them too.
"""

from service.db.tables.base import Table, UtcDateTime
from service.db.tables.files import FileRow, UploadPartRow, UploadRow
from service.db.tables.jobs import CheckpointRow, JobMetadataRow, JobRow, ModelRow
from service.db.tables.organization import (
    AdminKeyRow,
    ApiKeyRow,
    AuditLogRow,
    ProjectRow,
    ServiceAccountRow,
    StoredBytesRow,
)
from service.db.tables.requests import IdempotencyRow, RateLimitRow
from service.db.tables.runs import ClusterCapacityRow, RunEventRow, RunRow
from service.db.tables.webhooks import WebhookDeliveryRow, WebhookEndpointRow

__all__ = [
    "AdminKeyRow",
    "ApiKeyRow",
    "AuditLogRow",
    "CheckpointRow",
    "ClusterCapacityRow",
    "FileRow",
    "IdempotencyRow",
    "JobMetadataRow",
    "JobRow",
    "ModelRow",
    "ProjectRow",
    "RateLimitRow",
    "RunEventRow",
    "RunRow",
    "ServiceAccountRow",
    "StoredBytesRow",
    "Table",
    "UploadPartRow",
    "UploadRow",
    "UtcDateTime",
    "WebhookDeliveryRow",
    "WebhookEndpointRow",
]
