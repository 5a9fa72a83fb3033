"""The service's errors. Each knows its HTTP status and code; the API renders them in one place.

ServiceError
├── InvalidRequest 400
├── Unauthorized 401
├── Forbidden 403
├── NotFound 404
├── Conflict 409
├── PayloadTooLarge 413
├── TooManyRequests 429
├── InternalError 500
└── Unavailable 503
"""

from typing import ClassVar


class ServiceError(Exception):
    """`message` says what was wrong and what to do; `param` is the dotted path of the field."""

    status: ClassVar[int]
    code: ClassVar[str | None] = None
    error_type: ClassVar[str] = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(ServiceError):
    status = 400
    code = "invalid_value"


class Unauthorized(ServiceError):
    status = 401
    code = "invalid_api_key"


class Forbidden(ServiceError):
    """The key may not do this, whatever it is done to. What is another project's is not found instead."""

    status = 403
    code = "insufficient_permissions"


class NotFound(ServiceError):
    status = 404
    code = "not_found"


class Conflict(ServiceError):
    status = 409
    code = "conflict"


class PayloadTooLarge(ServiceError):
    status = 413
    code = "payload_too_large"


class TooManyRequests(ServiceError):
    """`retry_after_s` is when to come again."""

    status = 429
    code = "rate_limit_exceeded"
    error_type = "rate_limit_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"
    error_type = "server_error"


class InternalError(ServiceError):
    """A mistake of the service's own; the log has its traceback."""

    status = 500
    code = "internal_error"
    error_type = "server_error"
