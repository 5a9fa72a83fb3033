"""What the room works with."""

from dataclasses import dataclass

from schemas.ids import KeyId
from service.clock import Clock
from service.db.engine import Database


@dataclass(frozen=True, slots=True)
class Organization:
    database: Database
    clock: Clock
    actor: KeyId
    """The admin key that is used."""
