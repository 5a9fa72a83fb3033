"""Readiness: anybody may ask as often as he likes."""

import asyncio
import threading

import pytest

from service.api import readiness
from service.api.readiness import FRESH_S, TOO_LONG, Readiness

ASKERS = 50


def test_who_asks_at_once_shares_one_look() -> None:
    looks: list[str] = []

    def check() -> str | None:
        looks.append(threading.current_thread().name)
        return "away" if len(looks) == 1 else None

    async def ask() -> tuple[list[list[str]], list[str]]:
        ready = Readiness({"store": check, "database": lambda: None})
        together = await asyncio.gather(*(ready.troubles() for _ in range(ASKERS)))
        await asyncio.sleep(FRESH_S)
        return together, await ready.troubles()

    together, later = asyncio.run(ask())
    assert (together, later) == ([["store: away"]] * ASKERS, [])
    assert len(looks) == 2


def test_a_check_that_hangs_is_told_and_holds_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LONGEST_WAIT_S", 0.01)
    may_end = threading.Event()
    begun: list[None] = []

    def hang() -> str | None:
        begun.append(None)
        may_end.wait()
        return None

    async def ask() -> list[list[str]]:
        ready = Readiness({"store": hang})
        told = [await ready.troubles() for _ in range(3)]
        may_end.set()
        return told

    assert asyncio.run(ask()) == [[TOO_LONG]] * 3
    assert len(begun) == 1
