"""What is kept of requests: how many a project may make, and first answers that are told again."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Table


class RateLimitRow(Table):
    """What a project may ask for in a minute and in a day: of one base model jobs, of the model `*` requests."""

    __tablename__ = "rate_limits"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(256), primary_key=True)
    max_requests_per_1_minute: Mapped[int | None] = mapped_column(Integer)
    max_requests_per_1_day: Mapped[int | None] = mapped_column(Integer)
    """Null: no limit."""


class IdempotencyRow(Table):
    """The first answer to an `Idempotency-Key`, told again to its repeats."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    """A project's id, or `organization`."""
    key: Mapped[str] = mapped_column(String(256), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    """Of method, path and body."""
    response_body: Mapped[dict[str, Any]]
    """Without the secret, where it had one."""
    created_at: Mapped[datetime] = mapped_column(index=True)
