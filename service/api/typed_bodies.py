"""A JSON body as one of the wire's request objects, or the error that names the field."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from schemas.base import Request
from service.api.json_bodies import AdminJsonBody, JsonBody, JsonObject
from service.api.validation_messages import explain_body

Body = TypeVar("Body", bound=Request)


def body_as(model: type[Body]) -> Callable[[JsonBody], Body]:
    """A dependency, under a project's key. Raises: InvalidRequest."""

    def parse(body: JsonBody) -> Body:
        return _parse(model, body)

    return parse


def admin_body_as(model: type[Body]) -> Callable[[AdminJsonBody], Body]:
    """A dependency, under an admin key. Raises: InvalidRequest."""

    def parse(body: AdminJsonBody) -> Body:
        return _parse(model, body)

    return parse


def _parse(model: type[Body], body: JsonObject) -> Body:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise explain_body(error, model) from error
