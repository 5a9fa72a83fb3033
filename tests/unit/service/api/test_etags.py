"""`If-None-Match`."""

import pytest

from service.api.etags import is_known


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
