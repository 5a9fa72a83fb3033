"""The nearest known name, for messages that name the remedy."""

import difflib
from collections.abc import Iterable

SHOWN_CHARACTERS = 100
LISTED_NAMES = 10


def shown(text: str) -> str:
    """What a message repeats of a user's own text: quoted, and not a page of it."""
    return f'"{text}"' if len(text) <= SHOWN_CHARACTERS else f'"{text[:SHOWN_CHARACTERS]}…"'


def nearest(name: str, known: Iterable[str]) -> str | None:
    # Bounded: comparing costs the product of both lengths.
    matches = difflib.get_close_matches(name[: 2 * SHOWN_CHARACTERS], list(known), n=1)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str], *, kind: str) -> str:
    """`did you mean "x"?`, or the first of the known names when none is near."""
    names = sorted(known)
    match = nearest(name, names)
    if match is not None:
        return f'did you mean "{match}"?'
    if not names:
        return f"there are no {kind}"
    return f"{'some' if len(names) > LISTED_NAMES else 'the'} {kind} are {', '.join(names[:LISTED_NAMES])}"
