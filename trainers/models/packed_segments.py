"""Who attends to whom in a packed row of pairs, each `[shared | chosen | rejected]`, end to end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """One pair's token counts in the packed row, in this order."""

    shared: int
    """What both sides begin with: the prompt, and the first completion tokens where they are the same."""
    chosen: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Attending:
    """Consecutive tokens that see each other causally and, before that, all of some earlier tokens."""

    rows: slice
    before: slice | None


def attending_rows(segments: Sequence[Segment]) -> Iterator[Attending]:
    """Yield each pair's shared and chosen tokens as one part, its rejected ones as another; none is empty."""
    start = 0
    for segment in segments:
        after_shared, after_chosen = start + segment.shared, start + segment.shared + segment.chosen
        end = after_chosen + segment.rejected
        if after_chosen > start:
            yield Attending(slice(start, after_chosen), before=None)
        if end > after_chosen:
            yield Attending(slice(after_chosen, end), before=slice(start, after_shared) if segment.shared else None)
        start = end
