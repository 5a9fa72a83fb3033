"""Create once for an `Idempotency-Key`: the first answer is kept in the transaction that made it, and told again.

An answer with an error is not kept: its transaction is rolled back, so a repeat is judged anew.
A secret is not kept either: `create` returns an answer without it, and the caller adds it to what it tells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from schemas.base import Response
from service.db.engine import Database
from service.db.idempotency import IdempotencyKeyOwner, IdempotencyRepository
from service.db.tables import IdempotencyRow
from service.errors import Conflict

Answer = TypeVar("Answer", bound=Response)


class IdempotencyKeyReused(Conflict):
    """The key came before with another request."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class OncePer:
    owner: IdempotencyKeyOwner
    key: str
    request_sha256: str
    """Of method, path and body."""


def create_once(
    database: Database,
    once_per: OncePer | None,
    create: Callable[[Session], Answer],
    *,
    answer_type: type[Answer],
    now: datetime,
) -> Answer:
    """Run `create` in one writing transaction, or return its first answer. Raises: IdempotencyKeyReused."""
    if once_per is None:
        with database.write() as session:
            return create(session)
    try:
        return _create_or_repeat(database, once_per, create, answer_type=answer_type, now=now)
    except IntegrityError:
        # PostgreSQL lets two requests of one key begin; the one that commits last lands here and repeats the other.
        return _create_or_repeat(database, once_per, create, answer_type=answer_type, now=now)


def _create_or_repeat(
    database: Database,
    once_per: OncePer,
    create: Callable[[Session], Answer],
    *,
    answer_type: type[Answer],
    now: datetime,
) -> Answer:
    with database.write() as session:
        answers = IdempotencyRepository(session)
        first = answers.find(once_per.owner, once_per.key)
        if first is not None:
            return _told_again(first, once_per, answer_type)
        answer = create(session)
        answers.add(
            IdempotencyRow(
                owner=once_per.owner,
                key=once_per.key,
                request_sha256=once_per.request_sha256,
                response_body=answer.model_dump(mode="json"),
                created_at=now,
            )
        )
        return answer


def _told_again(first: IdempotencyRow, once_per: OncePer, answer_type: type[Answer]) -> Answer:
    if first.request_sha256 != once_per.request_sha256:
        raise IdempotencyKeyReused(
            f'The Idempotency-Key "{once_per.key}" was used before with another request; give each request its own'
        )
    return answer_type.model_validate(first.response_body)
