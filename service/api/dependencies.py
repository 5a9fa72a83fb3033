"""What endpoints are given: the service's parts, held by the app itself and by nothing global."""

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from service.api.etags import ShownObjects
from service.api.lookups import Lookups
from service.api.readiness import Readiness
from service.api.request_rate import RequestRate
from service.api.slow_work import SlowLane
from service.clock import Clock
from service.db.engine import Database
from service.errors import InvalidRequest
from service.organization.costs import Prices
from service.registry import Registry
from service.storage.object_store import ObjectStore
from service.webhooks.endpoints import Webhooks


@dataclass(frozen=True, slots=True)
class Parts:
    database: Database
    store: ObjectStore
    registry: Registry
    clock: Clock
    readiness: Readiness
    max_file_bytes: int
    webhooks: Webhooks
    prices: Prices
    lookups: Lookups
    assembly_lane: SlowLane = field(default_factory=SlowLane)
    webhook_test_lane: SlowLane = field(default_factory=SlowLane)
    delete_lane: SlowLane = field(default_factory=SlowLane)
    request_rate: RequestRate = field(default_factory=RequestRate)
    shown_jobs: ShownObjects = field(default_factory=ShownObjects)


# On the event loop, as nothing here waits: each `def` among the dependencies is a thread's turn in every request.


async def _parts_of(request: Request) -> Parts:
    return cast(Parts, request.app.state.parts)


async def _webhooks_of(parts: Annotated[Parts, Depends(_parts_of)]) -> Webhooks:
    return parts.webhooks


App = Annotated[Parts, Depends(_parts_of)]
Hooks = Annotated[Webhooks, Depends(_webhooks_of)]


async def refuse_nul(request: Request) -> None:
    """PostgreSQL's text takes no NUL, and no id has one."""
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidRequest("The URL has a NUL character (%00); remove it")
