"""A JSON body becomes an object, after the key was checked and in bounded memory and depth."""

from typing import Annotated

from fastapi import Depends, Request
from jiter import from_json

from service.api.auth import Org, Project
from service.errors import InvalidRequest, PayloadTooLarge

MAX_BODY_BYTES = 1_000_000

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject = dict[str, JsonValue]


async def _read_from_project(request: Request, _key_is_checked: Project) -> JsonObject:
    return await _read_object(request)


async def _read_from_admin(request: Request, _key_is_checked: Org) -> JsonObject:
    return await _read_object(request)


JsonBody = Annotated[JsonObject, Depends(_read_from_project)]
AdminJsonBody = Annotated[JsonObject, Depends(_read_from_admin)]


async def _read_object(request: Request) -> JsonObject:
    """Raises: InvalidRequest, PayloadTooLarge."""
    _check_content_type(request.headers.get("content-type"))
    _check_encoding(request.headers.get("content-encoding", "identity"))
    return parse_object(await _read_capped(request))


def parse_object(body: bytes) -> JsonObject:
    """Raises: InvalidRequest."""
    if not body.strip():
        raise InvalidRequest("The body is empty; send a JSON object")
    try:
        # The parser counts its depth: a bomb of brackets ends here too.
        value = from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("The body is JSON but not an object; send {…}")
    if b"\\u0000" in body and _has_nul(value):
        raise InvalidRequest("The body has a NUL character (\\u0000) in a string; remove it")
    return value


def without_nulls(given: JsonObject, names: frozenset[str]) -> JsonObject:
    """Without those of the names whose null says as much as their absence."""
    return {name: value for name, value in given.items() if value is not None or name not in names}


async def _read_capped(request: Request) -> bytes:
    body = bytearray()
    _check_size(int(request.headers.get("content-length", "0")))
    async for chunk in request.stream():
        body += chunk
        _check_size(len(body))
    return bytes(body)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"The body has more than {MAX_BODY_BYTES:,} bytes; preference pairs go to POST /v1/files")


def _check_content_type(content_type: str | None) -> None:
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        given = f'"{kind[:100]}"' if kind else "missing"
        raise InvalidRequest(f"The content-type is {given}; send application/json")


def _check_encoding(encoding: str) -> None:
    if encoding.lower() != "identity":
        raise InvalidRequest(f'The content-encoding is "{encoding[:100]}"; send the body as it is')


def _has_nul(value: JsonValue) -> bool:
    match value:
        case str():
            return "\0" in value
        case list():
            return any(map(_has_nul, value))
        case dict():
            return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return False
