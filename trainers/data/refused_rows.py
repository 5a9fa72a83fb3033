"""Rows that the model's chat template refuses, told all in one error, so that a file is mended once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainers.naming import first_names

LINES_NAMED = 10


class RowRefused(Exception):
    """Why a row cannot be trained under this template, and what to do: goes after the line's number."""


@dataclass(slots=True)
class RefusedRows:
    reason: str = ""
    """Of the first."""
    lines: list[int] = field(default_factory=list)

    def add(self, line: int, refused: RowRefused) -> None:
        self.reason = self.reason or str(refused)
        self.lines.append(line)

    def message(self, file: str | None) -> str:
        told = f"{file}, line {self.lines[0]}: {self.reason}"
        count = len(self.lines)
        return told if count == 1 else f"{told}. There are {count} such rows: {name_lines(self.lines)}"


def name_lines(lines: Sequence[int]) -> str:
    """Name the first of them for a message, and count the rest."""
    return f"{'line' if len(lines) == 1 else 'lines'} {first_names(lines, LINES_NAMED)}"
