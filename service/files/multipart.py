"""Read a multipart/form-data body as it streams in: bytes to part events, nothing kept."""

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MAX_BOUNDARY_LENGTH, MultipartParser, parse_options_header

from service.files.upload_errors import UploadError


@dataclass(frozen=True, slots=True)
class PartStart:
    name: str
    filename: str | None
    """None for a plain field."""


@dataclass(frozen=True, slots=True)
class PartBytes:
    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    pass


PartEvent = PartStart | PartBytes | PartEnd


class MultipartReader:
    """Feed it the body's chunks; `is_complete` once the closing boundary was read."""

    def __init__(self, content_type: str) -> None:
        self.is_complete = False
        self._events: list[PartEvent] = []
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._parser = MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._start_part,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> list[PartEvent]:
        """Raises: UploadError when the body is not multipart."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise UploadError(f"The request body is not valid multipart/form-data: {error}.") from error
        events, self._events = self._events, []
        return events

    def _begin_part(self) -> None:
        self._header_name = self._header_value = self._disposition = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _start_part(self) -> None:
        # The header is latin-1 to the parser; clients write UTF-8 there, which the round trip keeps.
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if name is None:
            raise UploadError('A part of the form has no name; give each `Content-Disposition: form-data; name="…"`.')
        filename = options.get(b"filename")
        text = None if filename is None else filename.decode(errors="replace")
        self._events.append(PartStart(name.decode(errors="replace"), text))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartBytes(data[start:end]))

    def _end_part(self) -> None:
        self._events.append(PartEnd())

    def _end(self) -> None:
        self.is_complete = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        given = content_type.partition(";")[0][:100] or "missing"
        raise UploadError(f"The Content-Type is {given}; send multipart/form-data, as the openai client does.")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_LENGTH:
        raise UploadError(
            f"The Content-Type names no boundary of 1 to {MAX_BOUNDARY_LENGTH} bytes; let the client write that header."
        )
    return boundary
