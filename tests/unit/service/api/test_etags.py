"""`If-None-Match`, and what is told without being made again."""

from dataclasses import dataclass

import pytest
from fastapi import Request

from schemas.base import Response as WireObject
from service.api.etags import KEPT, ShownObjects, is_known


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [
        ('"a-1"', True),
        ('W/"a-1"', True),
        ('"b-1", "a-1"', True),
        ("*", True),
        ('"a-2"', False),
        ("a-1", False),
        ("", False),
        (None, False),
    ],
)
def test_which_tags_are_known(if_none_match: str | None, known: bool) -> None:
    assert is_known(if_none_match, '"a-1"') is known


class Shown(WireObject):
    version: int


@dataclass(frozen=True)
class Found:
    etag: str
    wire_object: Shown


def ask(shown: ShownObjects, version: int, loads: list[int], *, newest: int | None = None) -> tuple[bytes, str]:
    """`newest`: what loading finds, where it has changed since the version was asked for."""
    answer = shown.answer(Request({"type": "http", "headers": []}), f'"a-{version}"')
    if answer is None:
        found = version if newest is None else newest
        loads.append(found)
        answer = shown.show(Found(f'"a-{found}"', Shown(version=found)))
    return bytes(answer.body), answer.headers["etag"]


def test_each_version_is_made_once_and_told_under_its_own_tag() -> None:
    shown, loads = ShownObjects(), list[int]()
    assert [ask(shown, version, loads) for version in (1, 1)] == [(b'{"version":1}', '"a-1"')] * 2
    assert ask(shown, 2, loads, newest=3) == (b'{"version":3}', '"a-3"')
    assert ask(shown, 3, loads) == (b'{"version":3}', '"a-3"')
    assert loads == [1, 3]


def test_what_was_asked_for_longest_ago_is_forgotten() -> None:
    shown, loads = ShownObjects(), list[int]()
    for version in (*range(KEPT), 0, KEPT, 0, 1):
        ask(shown, version, loads)
    assert loads == [*range(KEPT), KEPT, 1]
