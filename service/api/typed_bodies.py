"""A JSON body as one of the wire's request objects, or the error that names the field."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from schemas.base import Request
from service.api.json_bodies import JsonBody
from service.api.validation_messages import explain_body

Body = TypeVar("Body", bound=Request)


def body_as(model: type[Body]) -> Callable[[JsonBody], Body]:
    """A dependency. Raises: InvalidRequest."""

    def parse(body: JsonBody) -> Body:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise explain_body(error, model) from error

    return parse
