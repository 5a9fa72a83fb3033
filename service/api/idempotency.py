"""The `Idempotency-Key` header of requests that create."""

import hashlib
import json
from typing import Annotated

from fastapi import Depends, Header

from service.api.json_bodies import JsonObject
from service.db.idempotency import IdempotencyKeyOwner
from service.db.once import OncePer
from service.errors import InvalidRequest

MAX_KEY_CHARACTERS = 256


def _check_key(
    idempotency_key: Annotated[str | None, Header(description="Repeats of one key get the first answer.")] = None,
) -> str | None:
    if idempotency_key is None:
        return None
    if not 1 <= len(idempotency_key) <= MAX_KEY_CHARACTERS or not idempotency_key.isprintable():
        raise InvalidRequest(f"The Idempotency-Key must have 1 to {MAX_KEY_CHARACTERS} printable characters")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_check_key)]


def once_per_body(owner: IdempotencyKeyOwner, key: str | None, *, path: str, body: JsonObject) -> OncePer | None:
    """Two bodies are the same when they say the same, whatever the order of their fields."""
    said = json.dumps(["POST", path, body], sort_keys=True)
    return once_per(owner, key, request_sha256=hashlib.sha256(said.encode()).hexdigest())


def once_per(owner: IdempotencyKeyOwner, key: str | None, *, request_sha256: str) -> OncePer | None:
    return None if key is None else OncePer(owner, key, request_sha256)
