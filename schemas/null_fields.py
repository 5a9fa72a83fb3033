"""`"refusal": null`, `"audio": null`, …: what a client's saved answer has beside its text, taken for absent.

Few rows have such fields, so they are looked for only where pydantic refused one: all other rows pay nothing.
"""

from pydantic import ValidationError

from schemas.row_json import JsonObject, object_at


def drop_null_fields(row: JsonObject, *, refused_for: ValidationError) -> bool:
    """Remove, in place, the fields of messages that we don't know and that are null; False when there were none."""
    dropped = False
    for finding in refused_for.errors(include_url=False, include_context=False):
        *path, name = finding["loc"]
        if path and finding["type"] == "extra_forbidden" and finding["input"] is None:
            del object_at(row, path)[str(name)]
            dropped = True
    return dropped
