"""Read a preference file into pairs, each with its line number: errors name lines, as the service's validation does."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from schemas.preference_rows import PreferencePair, RowError, RowFormat, parse_row
from trainers.errors import TrainerError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    line: int
    """Counts from 1, blank lines too."""
    pair: PreferencePair


def read_rows(
    content: bytes, *, row_format: RowFormat, sha256: str, error: type[TrainerError]
) -> Iterator[PreferenceRow]:
    """Parse the rows of a file that was validated before, one by one: as objects they take far more room than it.

    Raises: `error`, at once when the file is another one than the spec names, and where a row cannot be read.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise error(
            f"{error.param} has the sha256 {found}, not {sha256}: it changed after the job was made; upload it again"
        )
    return _rows(content, row_format, error)


def _rows(content: bytes, row_format: RowFormat, error: type[TrainerError]) -> Iterator[PreferenceRow]:
    for number, line in enumerate(BytesIO(content.removeprefix(BOM)), 1):
        if not line.strip():
            continue
        try:
            _, pair = parse_row(line.rstrip(b"\r\n"), row_format=row_format)
        except RowError as reason:
            raise error(f"line {number}: {reason}") from reason
        yield PreferenceRow(number, pair)
