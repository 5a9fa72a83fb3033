"""`"content": [{"type": "text", "text": …}, …]`: OpenAI's other way to write a message's text, joined to one text.

Few rows have parts, so they are looked for only where pydantic missed a text: all other rows pay nothing.
"""

from pydantic import ValidationError

from schemas.row_errors import RowError, describe_type, dotted_path, shown
from schemas.row_json import JsonObject, object_at


def join_text_parts(row: JsonObject, *, refused_for: ValidationError) -> bool:
    """Join, in place, the parts that pydantic took for a wrong type; False when there were none. Raises: RowError."""
    joined = False
    for finding in refused_for.errors(include_url=False, include_context=False):
        *path, name = finding["loc"]
        parts = finding["input"]
        if name == "content" and finding["type"] == "string_type" and isinstance(parts, list):
            object_at(row, path)["content"] = _join(parts, field=dotted_path(finding["loc"]))
            joined = True
    return joined


def _join(parts: list[object], *, field: str) -> str:
    if not parts:
        raise RowError(field, "is an empty list; give text or at least one text part")
    return "".join(_text_of(part, field=f"{field}.{number}") for number, part in enumerate(parts))


def _text_of(part: object, *, field: str) -> str:
    if not isinstance(part, dict):
        raise RowError(field, f'is {describe_type(part)}; give a part like {{"type": "text", "text": "…"}}')
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        named = f'"{shown(kind)}"' if isinstance(kind, str) else "missing or not text"
        raise RowError(f"{field}.type", f'is {named}; preference rows train on "text" parts alone')
    if not isinstance(text, str):
        raise RowError(f"{field}.text", "is missing or not text; give text")
    unknown = next((name for name in part if name not in ("type", "text")), None)
    if unknown is not None:
        raise RowError(f"{field}.{shown(unknown)}", 'is not a known field of a text part; keep "type" and "text"')
    return text
