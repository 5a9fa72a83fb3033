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
    for operations in document["paths"].values():
        for operation in operations.values():
            _tell_errors(operation["responses"])
    return document


def _tell_errors(responses: OpenApi) -> None:
    responses.pop("422", None)
    responses["default"] = {
        "description": "Any error",
        "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model="ErrorEnvelope")}}},
    }
