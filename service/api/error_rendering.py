"""Every error leaves in one envelope, from one place."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from schemas.errors import ErrorBody, ErrorEnvelope
from service.api.known_paths import MethodNotAllowed, explain_unrouted, query_parameters
from service.api.request_log import route_of
from service.api.validation_messages import explain_query
from service.db.engine import is_outage
from service.errors import ServiceError, TooManyRequests, Unavailable
from service.files.downloads import RangeNotSatisfiable
from service.storage.object_store import StoreError

log = structlog.get_logger(__name__)

UNAVAILABLE_RETRY_S = 1


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_bad_query)
    app.add_exception_handler(HTTPException, _on_unrouted)
    app.add_exception_handler(DBAPIError, _on_database_trouble)
    app.add_exception_handler(PoolTimeout, _on_database_trouble)
    app.add_exception_handler(StoreError, _on_store_trouble)


def render_error(error: ServiceError) -> Response:
    body = ErrorBody(message=error.message, type=error.error_type, param=error.param, code=error.code)
    return JSONResponse(
        ErrorEnvelope(error=body).model_dump(mode="json"), status_code=error.status, headers=_headers(error)
    )


def _headers(error: ServiceError) -> dict[str, str]:
    match error:
        case RangeNotSatisfiable():
            return {"content-range": error.content_range}
        case MethodNotAllowed():
            return {"allow": ", ".join(error.allowed)}
        case ServiceError(status=401):
            return {"www-authenticate": "Bearer"}
        case ServiceError(status=409):
            return {"x-should-retry": "false"}  # the SDK would otherwise try a 409 again
        case TooManyRequests():
            return {"retry-after": str(error.retry_after_s)}
        case Unavailable():
            return {"retry-after": str(UNAVAILABLE_RETRY_S)}
    return {}


def _on_service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return render_error(error)


def _on_bad_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return render_error(explain_query(error.errors(), known=query_parameters(request)))


def _on_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return render_error(explain_unrouted(request, error))


def _on_database_trouble(request: Request, error: Exception) -> Response:
    if not is_outage(error):
        raise error  # a mistake of ours, and a 500
    log.error("database_failed", method=request.method, route=route_of(request.scope), exc_info=error)
    return render_error(Unavailable("The database did not do its part; try again in a moment, or tell the operator"))


def _on_store_trouble(request: Request, error: Exception) -> Response:
    log.error("store_failed", method=request.method, route=route_of(request.scope), exc_info=error)
    return render_error(
        Unavailable("The object store did not do its part; try again in a moment, or tell the operator")
    )
