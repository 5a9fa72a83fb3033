"""One JSONL line to one JSON object, with everything refused that two parsers could read differently.

Duplicate keys, NaN, lone surrogates, NUL characters, deep nesting: jiter (pydantic's parser) finds them in one pass,
with its own bound on recursion.
"""

from collections.abc import Sequence

import jiter

from schemas.row_errors import RowError, describe_type, shown

ESCAPED_NUL = b"\\u0000"
JsonObject = dict[str, object]
REASONS = {
    "recursion limit exceeded": "is nested more than 200 levels deep; flatten it",
    "number out of range": "has a number of thousands of digits; give a smaller one",
    "lone leading surrogate in hex escape": r"has half a surrogate pair (\ud800 to \udfff), no character; remove it",
    "unexpected end of hex escape": r"has half a surrogate pair or a cut \u escape, no character; remove it",
}


def read_object(line: bytes) -> JsonObject:
    """Raises: RowError."""
    try:
        value = jiter.from_json(line, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise _syntax_error(line, str(error)) from error
    if not isinstance(value, dict):
        raise RowError(None, f"is {describe_type(value)}, not a JSON object; write one object a line")
    if ESCAPED_NUL in line:
        _refuse_nul(value, path="")
    return value


def object_at(row: JsonObject, path: Sequence[int | str]) -> JsonObject:
    """The object inside the row that a finding of pydantic's names; names of union members lead nowhere."""
    value: object = row
    for step in path:
        match value, step:
            case dict(), _:
                value = value[step]
            case list(), int():
                value = value[step]
    assert isinstance(value, dict)
    return value


def _syntax_error(line: bytes, found: str) -> RowError:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        at = f"byte 0x{line[error.start]:02x} at offset {error.start}"
        return RowError(None, f"is not UTF-8: {at} of the line; save the file as UTF-8")
    if b"\0" in line:
        return RowError(None, f"has a NUL byte at offset {line.index(0)}; remove it (UTF-16 files are full of them)")
    what, _, position = found.rpartition(" at line ")
    where = f"line {position}".removeprefix("line 1 ")
    if what.startswith("Detected duplicate key"):
        return RowError(None, f"has the {shown(what.removeprefix('Detected duplicate '))} twice, at {where}; keep one")
    if what in REASONS:
        return RowError(None, f"{REASONS[what]} (at {where})")
    literal = _non_finite_literal(line, where)
    if literal:
        return RowError(None, f"has {literal} at {where}, which is not JSON; give a finite number or null")
    return RowError(None, f"is not valid JSON at {where}: {shown(what)}")


def _non_finite_literal(line: bytes, position: str) -> str | None:
    column = int(position.removeprefix("column ")) - 1 if position.startswith("column ") else 0
    around = line[max(0, column - 1) : column + 9].lstrip(b"-: ")
    return next((name for name in ("NaN", "Infinity") if around.startswith(name.encode()[:3])), None)


def _refuse_nul(value: object, *, path: str) -> None:
    # Depth is bounded by jiter's own limit.
    match value:
        case str() if "\0" in value:
            raise RowError(shown(path), r"has a NUL character (\u0000); remove it")
        case dict():
            for name, inner in value.items():
                if "\0" in name:
                    raise RowError(shown(path) or None, r"has a NUL character (\u0000) in a field's name; remove it")
                _refuse_nul(inner, path=f"{path}.{name}" if path else name)
        case list():
            for index, inner in enumerate(value):
                _refuse_nul(inner, path=f"{path}.{index}")
