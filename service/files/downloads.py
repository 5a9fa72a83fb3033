"""The HTTP side of a download: which bytes a `Range` header asks for, and the headers that tell what is sent.

Source: RFC 9110, section 14; RFC 6266.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from service.errors import ServiceError

SINGLE_RANGE = re.compile(r"\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII)


class RangeNotSatisfiable(ServiceError):
    """The `Range` header asks for bytes that the file does not have, or cannot be read."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes

    @property
    def content_range(self) -> str:
        """The `Content-Range` header of the 416."""
        return f"bytes */{self.size_bytes}"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`start` inclusive, `end` exclusive, of `size_bytes`: never empty."""

    start: int
    end: int
    size_bytes: int

    @property
    def length_bytes(self) -> int:
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The `Content-Range` header of the 206."""
        return f"bytes {self.start}-{self.end - 1}/{self.size_bytes}"


def parse_range(header: str | None, *, size_bytes: int) -> ByteRange | None:
    """Return the range asked for; None sends the whole file, as for several ranges or another unit.

    Raises: RangeNotSatisfiable.
    """
    unit, equals, ranges = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes" or "," in ranges:
        return None  # RFC 9110, 14.2: a server may ignore what it does not serve
    match = SINGLE_RANGE.fullmatch(ranges)
    first, last = match.groups() if match else ("", "")
    if not first and not last:
        raise RangeNotSatisfiable(
            f'The Range header is "{ranges[:64]}"; give bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT.',
            size_bytes=size_bytes,
        )
    start = int(first) if first else max(0, size_bytes - int(last))
    end = min(int(last) + 1, size_bytes) if first and last else size_bytes
    if start >= end:
        raise RangeNotSatisfiable(f"The file has {size_bytes:,} bytes; none lie in that Range.", size_bytes=size_bytes)
    return ByteRange(start, end, size_bytes)


def content_disposition(filename: str) -> str:
    """The header that makes a browser save the download under `filename`, whatever characters that has."""
    plain = re.sub(r'[^ -~]|["\\]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
