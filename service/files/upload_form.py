"""The form of `POST /v1/files`, field by field as it arrives, in any order: `file`, `purpose`, `expires_after[…]`."""

import difflib
import unicodedata
from dataclasses import dataclass

from schemas.files import EXPIRES_AFTER_MAX_S, EXPIRES_AFTER_MIN_S, UploadPurpose
from service.files.multipart import PartBytes, PartEnd, PartEvent, PartStart
from service.files.upload_errors import UploadError, UploadTooLarge

PURPOSE: UploadPurpose = "fine-tune"
ANCHOR = "expires_after[anchor]"
SECONDS = "expires_after[seconds]"
FIELDS = ("file", "purpose", ANCHOR, SECONDS)
MAX_FIELD_BYTES = 1024
MAX_FILENAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class UploadFields:
    filename: str
    purpose: UploadPurpose
    expires_after_s: int | None


class UploadForm:
    """Takes the parts' events, hands the file's bytes on, and keeps the small fields."""

    file_field = "file"

    def __init__(self, *, max_file_bytes: int) -> None:
        self._max_file_bytes = max_file_bytes
        self._file_bytes = 0
        self._filename: str | None = None
        self._fields: dict[str, str] = {}
        self._seen: set[str] = set()
        self._part = ""
        self._value = b""

    def accept(self, event: PartEvent) -> bytes:
        """Return the bytes of the file in this event, if any. Raises: UploadError."""
        match event:
            case PartStart():
                self._start(event)
            case PartBytes() if self._part == "file":
                return self._take_file_bytes(event.data)
            case PartBytes():
                self._take_field_bytes(event.data)
            case PartEnd() if self._part != "file":
                self._fields[self._part] = _text(self._value, self._part)
                _check_field(self._part, self._fields[self._part])
        return b""

    def finish(self) -> UploadFields:
        """Raises: UploadError when something is missing."""
        if self._filename is None:
            raise UploadError("The form has no file; add a part named file.", param="file")
        if self._file_bytes == 0:
            raise UploadError("The file is empty; give at least one preference pair.", param="file")
        if "purpose" not in self._fields:
            raise UploadError(f'The form has no purpose; add purpose="{PURPOSE}".', param="purpose")
        return UploadFields(self._filename, PURPOSE, self._expires_after_s())

    def too_large(self) -> UploadTooLarge:
        return too_large(self._max_file_bytes)

    def _start(self, part: PartStart) -> None:
        name = part.name
        if name not in FIELDS:
            raise _unknown_field(name)
        if name in self._seen:
            raise UploadError(f"The form has more than one {name}; give one.", param=name)
        self._seen.add(name)
        self._part, self._value = name, b""
        if name != "file":
            return
        if part.filename is None:
            raise UploadError(
                'The part "file" has no filename, so it is a plain field; send it as a file.', param="file"
            )
        self._filename = sanitise_filename(part.filename)

    def _take_file_bytes(self, data: bytes) -> bytes:
        self._file_bytes += len(data)
        if self._file_bytes > self._max_file_bytes:
            raise self.too_large()
        return data

    def _take_field_bytes(self, data: bytes) -> None:
        self._value += data
        if len(self._value) > MAX_FIELD_BYTES:
            message = f"The field {self._part} has more than {MAX_FIELD_BYTES} bytes; give a short value."
            raise UploadError(message, param=self._part)

    def _expires_after_s(self) -> int | None:
        if ANCHOR not in self._fields and SECONDS not in self._fields:
            return None
        for name in (ANCHOR, SECONDS):
            if name not in self._fields:
                raise UploadError(f"{name} is missing; give both the anchor and the seconds.", param=_dotted(name))
        return int(self._fields[SECONDS])


def too_large(max_bytes: int) -> UploadTooLarge:
    remedy = "send it in parts to POST /v1/uploads, as the client's uploads.upload_file_chunked does"
    return UploadTooLarge(f"The file is larger than {max_bytes:,} bytes; {remedy}.", param="file")


def sanitise_filename(name: str) -> str:
    """Keep the last path segment, without control and formatting characters, short enough to be stored anywhere."""
    last = name.replace("\\", "/").rpartition("/")[2]
    visible = "".join(c for c in last if not unicodedata.category(c).startswith("C")).strip()
    return visible[:MAX_FILENAME_CHARACTERS] if visible.strip(".") else "upload"


def _check_field(name: str, value: str) -> None:
    match name:
        case "purpose" if value != PURPOSE:
            raise UploadError(f'The purpose is "{value[:64]}"; this service takes "{PURPOSE}".', param="purpose")
        case "expires_after[anchor]" if value != "created_at":
            raise UploadError(f'The anchor is "{value[:64]}"; give "created_at".', param=_dotted(name))
        case "expires_after[seconds]" if not _is_lifetime(value):
            allowed = f"a whole number from {EXPIRES_AFTER_MIN_S:,} to {EXPIRES_AFTER_MAX_S:,}"
            raise UploadError(f'expires_after.seconds is "{value[:64]}"; give {allowed}.', param=_dotted(name))


def _is_lifetime(value: str) -> bool:
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(EXPIRES_AFTER_MAX_S))
    return is_number and EXPIRES_AFTER_MIN_S <= int(value) <= EXPIRES_AFTER_MAX_S


def _dotted(name: str) -> str:
    """`expires_after[seconds]` in the form, `expires_after.seconds` in an error."""
    return name.replace("[", ".").rstrip("]")


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UploadError(f"The field {name} is not UTF-8; give plain text.", param=_dotted(name)) from error


def _unknown_field(name: str) -> UploadError:
    shown = name[:64]
    nearest = difflib.get_close_matches(shown, FIELDS, n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"the fields are {', '.join(FIELDS)}."
    return UploadError(f'The form has an unknown field "{shown}"; {remedy}', param=shown)
