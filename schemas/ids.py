"""Ids are distinct types, so that a run id never slips in where a job id belongs."""

from typing import NewType

ProjectId = NewType("ProjectId", str)
KeyId = NewType("KeyId", str)
ServiceAccountId = NewType("ServiceAccountId", str)
FileId = NewType("FileId", str)
UploadId = NewType("UploadId", str)
PartId = NewType("PartId", str)
JobId = NewType("JobId", str)
EventId = NewType("EventId", str)
CheckpointId = NewType("CheckpointId", str)
AuditLogId = NewType("AuditLogId", str)
EndpointId = NewType("EndpointId", str)
DeliveryId = NewType("DeliveryId", str)
RunId = NewType("RunId", str)
"""`{job id}-{attempt}`: names one execution of a job and is its fencing token."""

DispatcherId = NewType("DispatcherId", str)
"""One dispatcher process, as the owner of leases."""


def run_id(job_id: JobId, *, attempt: int) -> RunId:
    return RunId(f"{job_id}-{attempt}")
