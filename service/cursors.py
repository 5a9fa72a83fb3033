"""`after` and `before`: ids that say where in a list to go on."""

from service.errors import InvalidRequest
from service.identifiers import is_of_kind
from service.nearest import shown


def check_cursor(cursor: str | None, *, prefix: str, kind: str, param: str = "after") -> None:
    """Any id of the kind will do, also one that is gone: one may delete what one pages through.

    Raises: InvalidRequest.
    """
    if cursor is not None and not is_of_kind(cursor, prefix=prefix):
        raise InvalidRequest(
            f"{param} is {shown(cursor)}; give {kind}'s id, {prefix}…, as a list tells it", param=param
        )


def unknown_cursor(cursor: str, *, kind: str, param: str = "after") -> InvalidRequest:
    """Of a list that nothing is taken out of."""
    return InvalidRequest(
        f"{param} is {shown(cursor)}, which is no {kind} of this list; give the id of one that is, or leave it out",
        param=param,
    )
