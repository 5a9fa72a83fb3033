"""Text as every database takes it."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """Replace NUL, which PostgreSQL's text has no place for, and lone surrogates, which UTF-8 has none for."""
    return text.replace("\0", REPLACEMENT).encode(errors="replace").decode()
