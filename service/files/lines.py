"""Cut a stream of byte chunks into lines in bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_LINE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OverlongLine:
    """A line that was longer than the cap; its bytes were let go as they came."""

    size_bytes: int


Line = bytes | OverlongLine


def split_lines(chunks: Iterable[bytes], *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yield each line without its newline, however the chunks were cut."""
    line = _GrowingLine(max_line_bytes)
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        line.add(first)
        for piece in others:
            yield line.take()
            line.add(piece)
    if line.size_bytes:
        yield line.take()


class _GrowingLine:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self.size_bytes = 0

    def add(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes > self._max_bytes:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def take(self) -> Line:
        size_bytes, self.size_bytes = self.size_bytes, 0
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole if size_bytes <= self._max_bytes else OverlongLine(size_bytes)
