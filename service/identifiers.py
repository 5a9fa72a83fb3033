"""New ids: a prefix and a UUIDv7, so that ids sort by time of creation."""

import re
from datetime import UTC, datetime

import uuid_utils

from schemas.ids import (
    AuditLogId,
    CheckpointId,
    DeliveryId,
    DispatcherId,
    EndpointId,
    EventId,
    FileId,
    JobId,
    KeyId,
    PartId,
    ProjectId,
    ServiceAccountId,
    UploadId,
)

OURS = re.compile(r"([a-z_]+[-_])([0-9a-f]{12})7[0-9a-f]{19}")
"""A prefix and a UUIDv7, whose first 48 bits are Unix milliseconds."""


def new_file_id() -> FileId:
    return FileId(f"file-{_time_ordered()}")


def new_upload_id() -> UploadId:
    return UploadId(f"upload_{_time_ordered()}")


def new_part_id() -> PartId:
    return PartId(f"part_{_time_ordered()}")


def new_job_id() -> JobId:
    return JobId(f"ftjob-{_time_ordered()}")


def earliest_job_id(moment: datetime) -> str:
    """What every job id made after `moment` sorts behind."""
    return f"ftjob-{int(moment.timestamp() * 1000):012x}"


def new_event_id() -> EventId:
    return EventId(f"ftevent-{_time_ordered()}")


def new_checkpoint_id() -> CheckpointId:
    return CheckpointId(f"ftckpt-{_time_ordered()}")


def new_project_id() -> ProjectId:
    return ProjectId(f"proj_{_time_ordered()}")


def new_key_id() -> KeyId:
    return KeyId(f"key_{_time_ordered()}")


def new_endpoint_id() -> EndpointId:
    return EndpointId(f"whe_{_time_ordered()}")


def new_delivery_id() -> DeliveryId:
    return DeliveryId(f"wh_{_time_ordered()}")


def new_webhook_event_id() -> str:
    return f"evt_{_time_ordered()}"


def new_dispatcher_id() -> DispatcherId:
    return DispatcherId(f"dispatcher_{_time_ordered()}")


def new_service_account_id() -> ServiceAccountId:
    return ServiceAccountId(f"svc_{_time_ordered()}")


def new_audit_log_id() -> AuditLogId:
    return AuditLogId(f"audit_log-{_time_ordered()}")


def new_request_id() -> str:
    return f"req_{_time_ordered()}"


def made_at(identifier: str) -> datetime | None:
    """When an id of ours was made, to the millisecond; None for any other text."""
    match = OURS.fullmatch(identifier)
    return datetime.fromtimestamp(int(match[2], 16) / 1000, UTC) if match else None


def is_of_kind(identifier: str, *, prefix: str) -> bool:
    """Whether it has the form of an id of ours with this prefix; that there is one, or ever was, it does not say."""
    match = OURS.fullmatch(identifier)
    return match is not None and match[1] == prefix


def _time_ordered() -> str:
    return uuid_utils.uuid7().hex
