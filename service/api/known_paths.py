"""Requests that no endpoint takes: the nearest path is told, or the methods that the path has.

The paths are read from the app's own OpenAPI document, so that nothing has to be kept in step with it.
"""

import re
from typing import Any, cast

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from service.errors import InvalidRequest, NotFound, ServiceError
from service.nearest import nearest, shown

ANSWERING = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/responses")


class UnknownPath(NotFound):
    code = "unknown_path"


class MethodNotAllowed(ServiceError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: list[str]) -> None:
        super().__init__(message)
        self.allowed = allowed


def explain_unrouted(request: Request, error: HTTPException) -> ServiceError:
    path = request.scope["path"]
    match error.status_code:
        case 404:
            return UnknownPath(f"There is nothing at {shown(path)}; {_remedy(path, request.app)}")
        case 405:
            allowed = sorted(map(str.upper, _operations_at(path, request.app))) or [(error.headers or {})["Allow"]]
            message = f"{request.method} is not allowed on {shown(path)}; use {' or '.join(allowed)}"
            return MethodNotAllowed(message, allowed=allowed)
    return InvalidRequest(f"The request cannot be read: {error.detail}")


def query_parameters(request: Request) -> list[str]:
    """The documented query parameters of the request's endpoint."""
    operations = _operations_at(request.scope["path"], request.app)
    parameters = operations.get(request.method.lower(), {}).get("parameters", [])
    return [parameter["name"] for parameter in parameters if parameter["in"] == "query"]


def _remedy(path: str, app: FastAPI) -> str:
    if path.startswith(ANSWERING):
        return "this service tunes models and runs none: load the adapter into your inference server and ask that"
    # An id in the path would drown the likeness, so each place of one is compared as such.
    templates = list(_paths(app))
    asked = re.sub(r"(?<=/)(file-|ftjob-|ft:|upload_|whe_|proj_|svc_|key_)[^/]*", "{}", path.rstrip("/"))
    by_shape = {re.sub(r"\{[^}]*\}", "{}", template): template for template in templates}
    match = by_shape.get(asked) or by_shape.get(nearest(asked, by_shape) or "")
    return f"did you mean {match}?" if match is not None else "the paths are listed at /openapi.json"


def _operations_at(path: str, app: FastAPI) -> dict[str, Any]:
    """By method, of every template that the path fits."""
    operations: dict[str, Any] = {}
    for template, of_template in _paths(app).items():
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path):
            operations |= of_template
    return operations


def _paths(app: FastAPI) -> dict[str, dict[str, Any]]:
    return cast(dict[str, dict[str, Any]], app.openapi()["paths"])
