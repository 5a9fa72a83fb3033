"""Check a preference file line by line, in memory that does not grow with the file.

Pure over an iterator of bytes: where they come from, and in which process this runs, is the caller's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from schemas.preference_rows import PreferencePair, RowError, RowFormat, parse_row
from service.files.file_kinds import BOM, JSONL, SNIFFED_BYTES, refuse_reason
from service.files.lines import MAX_LINE_BYTES, Line, OverlongLine, split_lines

LISTED_ERRORS = 100
SHOWN_ERRORS = 3
REMEMBERED_PAIRS = 2_000_000
"""With which later ones are compared: 160 MB."""
WHITESPACE = b" \t\r\v\f"


@dataclass(frozen=True, slots=True)
class LineError:
    """`line` counts from 1; None where the file as a whole is wrong."""

    line: int | None
    field: str | None
    """Dotted path, e.g. `preferred_output.0.content`."""
    reason: str

    def __str__(self) -> str:
        if self.line is None:
            return f"the file {self.reason}"
        subject = f'"{self.field}"' if self.field else "the row"
        return f"line {self.line}: {subject} {self.reason}"


@dataclass(frozen=True, slots=True)
class FileReport:
    format: RowFormat | None
    """None when no row could be read."""
    pairs: int
    equal_pairs: int
    """Pairs whose chosen and rejected are the same: they teach nothing, and a few of them do no harm."""
    repeated_pairs: int
    """Pairs that are an earlier one again."""
    contradictory_pairs: int
    """Pairs that are an earlier one with chosen and rejected exchanged."""
    errors: tuple[LineError, ...]
    """The first ones, at most `LISTED_ERRORS`."""
    error_count: int

    @property
    def is_valid(self) -> bool:
        return self.error_count == 0

    def summary(self) -> str:
        """The failure in one message: the first errors, and how many more there are, which the job's events list."""
        shown = ". ".join(str(error) for error in self.errors[:SHOWN_ERRORS])
        more = self.error_count - min(len(self.errors), SHOWN_ERRORS)
        if not more:
            return shown
        return f"{shown} (and {more:,} more; the first {len(self.errors)} are among the job's events)"


def validate_preferences(chunks: Iterable[bytes], *, max_line_bytes: int = MAX_LINE_BYTES) -> FileReport:
    """Read the whole file and report what is wrong with it, or its format and count of pairs."""
    head, whole = _peek(iter(chunks))
    reason = refuse_reason(head)
    if reason:
        return _refused(reason)
    check = _FileCheck(max_line_bytes)
    for number, line in enumerate(split_lines(whole, max_line_bytes=max_line_bytes), 1):
        check.add(number, line.removeprefix(BOM) if number == 1 and isinstance(line, bytes) else line)
    return check.report()


class _FileCheck:
    """What the lines so far have told. The file's format is that of its first readable row."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._format: RowFormat | None = None
        self._pairs = 0
        self._equal_pairs = 0
        self._earlier = _EarlierPairs()
        self._errors: list[LineError] = []
        self._error_count = 0

    def add(self, number: int, line: Line) -> None:
        if isinstance(line, OverlongLine):
            limit = self._max_line_bytes
            reason = f"has {line.size_bytes:,} bytes, more than {limit:,}; is it one row? Split or shorten it"
            self._note(LineError(number, None, reason))
            return
        if not line.strip(WHITESPACE):
            return
        try:
            self._format, pair = parse_row(line, row_format=self._format)
        except RowError as error:
            self._note(LineError(number, error.field, error.reason))
        else:
            self._count(pair)

    def report(self) -> FileReport:
        if not self._pairs and not self._error_count:
            self._note(LineError(None, None, f"is empty or has blank lines alone; {JSONL}"))
        if self._pairs and self._equal_pairs == self._pairs and not self._error_count:
            reason = (
                "has the same chosen and rejected answer in every row, which teaches nothing; give answers that differ"
            )
            self._note(LineError(None, None, reason))
        return FileReport(
            self._format,
            self._pairs,
            self._equal_pairs,
            self._earlier.repeated,
            self._earlier.contradicted,
            tuple(self._errors),
            self._error_count,
        )

    def _count(self, pair: PreferencePair) -> None:
        self._pairs += 1
        if pair.chosen == pair.rejected:
            self._equal_pairs += 1
        else:
            self._earlier.compare(pair)

    def _note(self, error: LineError) -> None:
        self._error_count += 1
        if len(self._errors) < LISTED_ERRORS:
            self._errors.append(error)


class _EarlierPairs:
    """Which pairs there have been, by 64 bits of each, and how many came again, the same way or the other way round."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.repeated = 0
        self.contradicted = 0

    def compare(self, pair: PreferencePair) -> None:
        context = (pair.prompt, repr(pair.tools) if pair.tools else None)
        preference = hash((context, pair.chosen, pair.rejected))
        self.repeated += preference in self._seen
        self.contradicted += hash((context, pair.rejected, pair.chosen)) in self._seen
        if len(self._seen) < REMEMBERED_PAIRS:
            self._seen.add(preference)


def _refused(reason: str) -> FileReport:
    return FileReport(None, 0, 0, 0, 0, (LineError(None, None, reason),), 1)


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Read enough to tell the file's kind; returns that and the whole stream again."""
    taken: list[bytes] = []
    size_bytes = 0
    while size_bytes < SNIFFED_BYTES and (chunk := next(chunks, None)) is not None:
        taken.append(chunk)
        size_bytes += len(chunk)
    return b"".join(taken)[:SNIFFED_BYTES], chain(taken, chunks)
