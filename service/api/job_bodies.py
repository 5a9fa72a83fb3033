"""The body of `POST /v1/fine_tuning/jobs`: OpenAI's older and other forms are told where their values belong."""

from typing import Annotated

from fastapi import Depends
from pydantic import ValidationError

from schemas.fine_tuning import CreateJobRequest
from service.api.json_bodies import JsonBody, JsonObject, without_nulls
from service.api.validation_messages import explain_body
from service.errors import InvalidRequest

OTHER_METHODS = ("supervised", "reinforcement")
NULL_IS_ABSENT = frozenset({"hyperparameters", "integrations", "method", "priority", "resources"})
NULL_IS_ABSENT_IN_METHOD = frozenset({"dpo", *OTHER_METHODS})
NULL_IS_ABSENT_IN_DPO = frozenset({"hyperparameters"})


class UnsupportedMethod(InvalidRequest):
    code = "unsupported_method"


def _parse_job(body: JsonBody) -> CreateJobRequest:
    return parse_job(body)


JobBody = Annotated[CreateJobRequest, Depends(_parse_job)]


def parse_job(body: JsonObject) -> CreateJobRequest:
    """Raises: InvalidRequest."""
    given = without_nulls(body, NULL_IS_ABSENT)
    _refuse_deprecated(given)
    method = given.get("method")
    if isinstance(method, dict):
        _refuse_other_methods(method)
        given["method"] = _without_null_settings(method)
    given.pop("hyperparameters", None)
    given.pop("integrations", None)
    try:
        return CreateJobRequest.model_validate(given)
    except ValidationError as error:
        raise explain_body(error, CreateJobRequest) from error


def _refuse_deprecated(given: JsonObject) -> None:
    if given.get("hyperparameters"):
        raise InvalidRequest(
            "hyperparameters at the top is no longer taken; move its values to method.dpo.hyperparameters: "
            '{"method": {"type": "dpo", "dpo": {"hyperparameters": {…}}}}',
            param="hyperparameters",
        )
    if given.get("integrations"):
        raise InvalidRequest(
            "integrations are not supported: no third party is told about a job; leave them out and read the job's "
            "events, which have every metric",
            param="integrations",
        )


def _refuse_other_methods(method: JsonObject) -> None:
    kind = method.get("type")
    named = [name for name in OTHER_METHODS if kind == name or method.get(name) is not None]
    if named:
        raise UnsupportedMethod(
            f'method.type "{named[0]}" is not supported; this service tunes by preference: give {{"type": "dpo"}}',
            param="method.type",
        )


def _without_null_settings(method: JsonObject) -> JsonObject:
    kept = without_nulls(method, NULL_IS_ABSENT_IN_METHOD)
    dpo = kept.get("dpo")
    return kept | {"dpo": without_nulls(dpo, NULL_IS_ABSENT_IN_DPO)} if isinstance(dpo, dict) else kept
