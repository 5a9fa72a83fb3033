"""`"refusal": null`, `"annotations": []`, …: what a client's saved answer has beside its text, taken for absent.

vLLM writes `"tool_calls": []` where OpenAI writes null. Few rows have such fields, so they are looked for only where
pydantic refused one: all other rows pay nothing.
"""

from pydantic import ValidationError

from schemas.row_json import JsonObject, object_at

EMPTY: tuple[object, ...] = (None, [])


def drop_empty_fields(row: JsonObject, *, refused_for: ValidationError) -> bool:
    """Remove, in place, fields of messages that are null or empty lists, where we don't know them or want items.

    False when there were none.
    """
    dropped = False
    for finding in refused_for.errors(include_url=False, include_context=False):
        *path, name = finding["loc"]
        if path and finding["type"] in ("extra_forbidden", "too_short") and finding["input"] in EMPTY:
            del object_at(row, path)[str(name)]
            dropped = True
    return dropped
