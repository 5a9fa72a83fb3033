"""What FastAPI cannot tell of our endpoints by itself: bodies that we read, the error envelope, no 422."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from schemas.base import Request
from schemas.errors import ErrorEnvelope
from schemas.files import EXPIRES_AFTER_MAX_S, EXPIRES_AFTER_MIN_S
from schemas.fine_tuning import CreateJobRequest
from schemas.organization import (
    CreateAdminKeyRequest,
    CreateProjectRequest,
    CreateServiceAccountKeyRequest,
    CreateServiceAccountRequest,
    UpdateApiKeyRequest,
    UpdateProjectRequest,
    UpdateRateLimitRequest,
    UpdateServiceAccountRequest,
)
from schemas.uploads import CompleteUploadRequest, CreateUploadRequest
from schemas.webhooks import (
    CreateWebhookEndpointRequest,
    RotateWebhookSecretRequest,
    UpdateWebhookEndpointRequest,
    WebhookSampleRequest,
)

OpenApi = dict[str, Any]
REFERENCE = "#/components/schemas/{model}"

JSON_BODIES: tuple[type[Request], ...] = (
    CreateJobRequest,
    CreateUploadRequest,
    CompleteUploadRequest,
    CreateWebhookEndpointRequest,
    UpdateWebhookEndpointRequest,
    RotateWebhookSecretRequest,
    WebhookSampleRequest,
    CreateProjectRequest,
    UpdateProjectRequest,
    CreateServiceAccountRequest,
    UpdateServiceAccountRequest,
    CreateServiceAccountKeyRequest,
    UpdateApiKeyRequest,
    UpdateRateLimitRequest,
    CreateAdminKeyRequest,
)


def json_body(model: type[Request]) -> OpenApi:
    """The `openapi_extra` of an endpoint that reads one of `JSON_BODIES`."""
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


UPLOAD_BODY: OpenApi = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["fine-tune"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": EXPIRES_AFTER_MIN_S,
                            "maximum": EXPIRES_AFTER_MAX_S,
                        },
                    },
                }
            }
        },
    }
}
PART_BODY: OpenApi = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "additionalProperties": False,
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
METADATA_FILTER: OpenApi = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "`metadata[key]=value`, any number of them; `metadata=null` for jobs without any.",
            "style": "deepObject",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}
FILE_CONTENT: dict[int | str, OpenApi] = {
    200: {"description": "The whole file", "content": {"application/octet-stream": {}}},
    206: {"description": "The range asked for", "content": {"application/octet-stream": {}}},
    302: {"description": "Where the bytes lie, for a short while"},
}


def _an_error(description: str) -> OpenApi:
    schema = {"$ref": REFERENCE.format(model="ErrorEnvelope")}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


ERRORS = {
    "400": _an_error("Something in the request is not what it may be; `param` names it"),
    "401": _an_error("No key, or none that opens this"),
    "403": _an_error("The key may only read"),
    "404": _an_error("Something named in the path is not there, or not this project's"),
    "409": _an_error("Not in this state, or the Idempotency-Key came with another request"),
    "413": _an_error("The body is too large"),
    "429": _an_error("The project has sent as many requests as it may; `retry-after` tells when to come again"),
    "500": _an_error("A mistake of the service's own"),
    "503": _an_error("Something that the service needs is away; try again"),
}
CONFLICT: dict[int | str, OpenApi] = {409: ERRORS["409"]}
"""The `responses` of an endpoint that a state can forbid; an `Idempotency-Key` tells of its own conflict."""
CREATED_JOB: dict[int | str, OpenApi] = {
    429: _an_error("The project has used up its requests, its jobs of a day, its places in the queue or its GPU-hours"),
}
RESUMED_JOB: dict[int | str, OpenApi] = CONFLICT | {
    429: _an_error("The project has used up its requests or its places in the queue"),
}
RANGE_ERROR: dict[int | str, OpenApi] = {416: _an_error("The file has no such bytes")}


def install_openapi(app: FastAPI) -> None:
    def openapi() -> OpenApi:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _describe(app: FastAPI) -> OpenApi:
    document: OpenApi = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, definitions = models_json_schema(
        [*((model, "validation") for model in JSON_BODIES), (ErrorEnvelope, "serialization")], ref_template=REFERENCE
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _tell_errors(operation, path=path, method=method)
    return document


def _tell_errors(operation: OpenApi, *, path: str, method: str) -> None:
    """Every status that can come is named, so that no client has to guess and the tests can hold us to it."""
    operation["responses"].pop("422", None)
    schemes = {name for scheme in operation.get("security", []) for name in scheme}
    parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
    told = {
        "400": bool(schemes),
        "401": bool(schemes),
        "403": "ProjectKey" in schemes and method not in ("get", "head"),
        "404": "{" in path,
        "409": "idempotency-key" in parameters,
        "413": "requestBody" in operation,
        "429": "ProjectKey" in schemes,
        "500": True,
        "503": path != "/livez",
    }
    for status, can_come in told.items():
        if can_come:
            operation["responses"].setdefault(status, ERRORS[status])
