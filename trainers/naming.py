"""Names in a message: the first of many, and how many more there are."""

from collections.abc import Sequence


def first_names(names: Sequence[object], limit: int) -> str:
    named = ", ".join(map(str, names[:limit]))
    rest = len(names) - limit
    return f"{named} and {rest} more" if rest > 0 else named
