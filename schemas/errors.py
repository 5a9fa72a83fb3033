"""The error envelope, OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""

from schemas.base import Response


class ErrorBody(Response):
    message: str
    """What was wrong, and what to do."""
    type: str
    param: str | None
    """Dotted path of the field that was wrong."""
    code: str | None


class ErrorEnvelope(Response):
    error: ErrorBody
