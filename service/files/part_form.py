"""The form of `POST /v1/uploads/{id}/parts`: one part named `data`."""

from service.files.multipart import PartBytes, PartEvent, PartStart
from service.files.upload_errors import UploadError, UploadTooLarge
from service.nearest import shown


class PartForm:
    file_field = "data"

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._is_seen = False

    def accept(self, event: PartEvent) -> bytes:
        """Return the bytes of the part in this event, if any. Raises: UploadError."""
        match event:
            case PartStart(name="data") if self._is_seen:
                raise UploadError("The form has more than one data; send each part by itself.", param="data")
            case PartStart(name="data"):
                self._is_seen = True
            case PartStart():
                raise UploadError(
                    f"The form has an unknown field {shown(event.name)}; give data.", param=event.name[:64]
                )
            case PartBytes():
                self._size_bytes += len(event.data)
                if self._size_bytes > self._max_bytes:
                    raise self.too_large()
                return event.data
        return b""

    def finish(self) -> None:
        """Raises: UploadError when there are no bytes."""
        if not self._is_seen:
            raise UploadError("The form has no data; add a part named data.", param="data")
        if self._size_bytes == 0:
            raise UploadError("The part is empty; give at least one byte.", param="data")

    def too_large(self) -> UploadTooLarge:
        return part_too_large(self._max_bytes)


def part_too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"The part is larger than {max_bytes:,} bytes; send smaller ones.", param="data")
