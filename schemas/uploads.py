"""`/v1/uploads`: one large file, sent in parts and put together at the end."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Request, Response
from schemas.files import EXPIRES_AFTER_MAX_S, EXPIRES_AFTER_MIN_S, FileObject, UploadPurpose

MAX_UPLOAD_BYTES = 8 * 1024**3
MAX_PART_BYTES = 64 * 1024 * 1024
MAX_PARTS = 10_000
UPLOAD_LIFETIME_S = 3_600

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


class ExpiresAfter(Request):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=EXPIRES_AFTER_MIN_S, le=EXPIRES_AFTER_MAX_S)]


class CreateUploadRequest(Request):
    bytes: Annotated[int, Field(ge=1, le=MAX_UPLOAD_BYTES)]
    """Of the whole file; the parts named at the end must have as many."""
    filename: Annotated[str, Field(min_length=1, max_length=1024)]
    mime_type: Annotated[str, Field(min_length=1, max_length=255)]
    """Required by the wire; what the rows say is found out from the rows."""
    purpose: UploadPurpose
    expires_after: ExpiresAfter | None = None
    """Of the File, counted from the moment it is put together."""


class CompleteUploadRequest(Request):
    part_ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=MAX_PARTS)]
    """In the file's order."""
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None
    """Of the whole file, in hexadecimal digits."""


class UploadObject(Response):
    id: str
    object: Literal["upload"]
    bytes: int
    """As announced, not as received."""
    created_at: int
    """Unix seconds."""
    expires_at: int
    """Unix seconds; the upload itself, not its File."""
    filename: str
    purpose: UploadPurpose
    status: UploadStatus
    file: FileObject | None
    """Once completed, until that File is deleted."""


class UploadPart(Response):
    id: str
    object: Literal["upload.part"]
    created_at: int
    """Unix seconds."""
    upload_id: str
