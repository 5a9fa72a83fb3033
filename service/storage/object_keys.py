"""Which object keys are allowed: the same in a folder and in a bucket, so that a store can be moved."""

MAX_KEY_BYTES = 1024
"""S3's limit."""
MAX_SEGMENT_BYTES = 255
"""A file system's limit."""
RESERVED_SEGMENT = ".incoming"
"""Where a folder keeps writes that are not complete yet."""


class InvalidObjectKey(ValueError):
    """A key that would leave the store or could not be moved to another one."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"object key {key[:200]!r} {reason}")


def check_key(key: str) -> str:
    """Return the key. Raises: InvalidObjectKey."""
    if not key or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
        raise InvalidObjectKey(key, f"must have 1 to {MAX_KEY_BYTES} bytes")
    if not key.isprintable() or "\\" in key:
        raise InvalidObjectKey(key, "has a control character or a backslash; use letters, digits and / . _ -")
    for segment in key.split("/"):
        _check_segment(segment, key)
    return key


def _check_segment(segment: str, key: str) -> None:
    if segment in ("", ".", ".."):
        raise InvalidObjectKey(key, f"has the segment {segment!r}; give a plain relative path")
    if segment == RESERVED_SEGMENT:
        raise InvalidObjectKey(key, f"has the segment {segment!r}, which the store keeps for itself")
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise InvalidObjectKey(key, f"has a segment of more than {MAX_SEGMENT_BYTES} bytes")
