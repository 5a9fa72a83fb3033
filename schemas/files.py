"""`/v1/files`: uploaded bytes and results."""

from typing import Literal

from schemas.base import Response

UploadPurpose = Literal["fine-tune"]
Purpose = Literal["fine-tune", "fine-tune-results"]

MAX_FILE_BYTES = 512 * 1024 * 1024
EXPIRES_AFTER_MIN_S = 3_600
EXPIRES_AFTER_MAX_S = 2_592_000


class FileObject(Response):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    """Unix seconds."""
    expires_at: int | None
    """Unix seconds; null: kept until deleted."""
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None


class FileDeleted(Response):
    id: str
    object: Literal["file"]
    deleted: bool
