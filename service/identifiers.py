"""New ids: a prefix and a UUIDv7, so that ids sort by time of creation."""

import uuid_utils

from schemas.ids import CheckpointId, EventId, FileId, JobId, KeyId, ProjectId


def new_file_id() -> FileId:
    return FileId(f"file-{_time_ordered()}")


def new_job_id() -> JobId:
    return JobId(f"ftjob-{_time_ordered()}")


def new_event_id() -> EventId:
    return EventId(f"ftevent-{_time_ordered()}")


def new_checkpoint_id() -> CheckpointId:
    return CheckpointId(f"ftckpt-{_time_ordered()}")


def new_project_id() -> ProjectId:
    return ProjectId(f"proj_{_time_ordered()}")


def new_key_id() -> KeyId:
    return KeyId(f"key_{_time_ordered()}")


def new_request_id() -> str:
    return f"req_{_time_ordered()}"


def _time_ordered() -> str:
    return uuid_utils.uuid7().hex
