"""Range headers and the headers of a download."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.files.downloads import ByteRange, RangeNotSatisfiable, content_disposition, parse_range


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-19", 10, 20),
        ("bytes=90-", 90, 100),
        ("bytes=90-1000", 90, 100),
        ("bytes=-5", 95, 100),
        ("bytes=-1000", 0, 100),
        ("Bytes = 1 - 2 ", 1, 3),
    ],
)
def test_a_range_is_cut_to_the_file(header: str, start: int, end: int) -> None:
    assert parse_range(header, size_bytes=100) == ByteRange(start, end, 100)


@pytest.mark.parametrize("header", [None, "", "lines=1-2", "bytes", "bytes=0-1,5-6"])
def test_what_is_not_served_by_range_is_served_whole(header: str | None) -> None:
    assert parse_range(header, size_bytes=100) is None


@pytest.mark.parametrize(
    "header",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=100-",
        "bytes=-0",
        "bytes=--1",
        "bytes=1",
        "bytes=٣-",
        "bytes=0x1-2",
    ],
)
def test_a_bad_range_is_not_satisfiable(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, size_bytes=100)

    assert (caught.value.status, caught.value.content_range) == (416, "bytes */100")


def test_an_empty_file_has_no_range() -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=0-", size_bytes=0)


def test_a_range_tells_its_headers() -> None:
    wanted = ByteRange(10, 20, 100)

    assert (wanted.content_range, wanted.length_bytes) == ("bytes 10-19/100", 10)


@settings(deadline=None)
@given(header=st.text(max_size=20).map(lambda text: f"bytes={text}"), size_bytes=st.integers(0, 50))
def test_any_header_gives_a_range_within_the_file_or_a_416(header: str, size_bytes: int) -> None:
    try:
        wanted = parse_range(header, size_bytes=size_bytes)
    except RangeNotSatisfiable:
        return
    assert wanted is None or 0 <= wanted.start < wanted.end <= size_bytes


def test_a_filename_of_any_characters_makes_one_safe_header() -> None:
    header = content_disposition('мои "пары"\r\nX: y.jsonl')

    assert header.isascii()
    assert header.isprintable()
    assert header.startswith('attachment; filename="')
    assert header.endswith("filename*=UTF-8''%D0%BC%D0%BE%D0%B8%20%22%D0%BF%D0%B0%D1%80%D1%8B%22%0D%0AX%3A%20y.jsonl")
