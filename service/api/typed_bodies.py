"""A JSON body as one of the wire's request objects, or the error that names the field."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from schemas.base import Request
from service.api.json_bodies import AdminJsonBody, JsonBody, JsonObject, without_nulls
from service.api.validation_messages import explain_body

Body = TypeVar("Body", bound=Request)


def body_as(model: type[Body]) -> Callable[[JsonBody], Body]:
    """A dependency, under a project's key. Raises: InvalidRequest."""

    def parse(body: JsonBody) -> Body:
        return _parse(model, body)

    return parse


def admin_body_as(
    model: type[Body], *, null_is_absent: frozenset[str] = frozenset()
) -> Callable[[AdminJsonBody], Body]:
    """A dependency, under an admin key. Raises: InvalidRequest."""

    def parse(body: AdminJsonBody) -> Body:
        return _parse(model, without_nulls(body, null_is_absent))

    return parse


def _parse(model: type[Body], body: JsonObject) -> Body:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise explain_body(error, model) from error
