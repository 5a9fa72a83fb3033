"""What can be wrong with an upload.

UploadError 400
├── UploadTooLarge 413
└── UploadNotStored 503
"""

from service.errors import ServiceError


class UploadError(ServiceError):
    """The form, one of its fields or its file is not what `POST /v1/files` takes."""

    status = 400
    code = "invalid_upload"


class UploadTooLarge(UploadError):
    """The file is over the cap; reading stopped there."""

    status = 413
    code = "file_too_large"


class UploadNotStored(UploadError):
    """The object store could not take the bytes, through no fault of the user's."""

    status = 503
    code = "storage_unavailable"
    error_type = "server_error"
