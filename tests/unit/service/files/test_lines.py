"""Lines out of chunks: the cuts between chunks change nothing, a line over the cap is let go."""

import tracemalloc
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from service.files.lines import OverlongLine, split_lines


@settings(deadline=None)
@given(text=st.binary(max_size=60).map(lambda text: text.replace(b"x", b"\n")), data=st.data())
def test_lines_are_those_of_the_whole_however_it_was_cut(text: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    lines = list(split_lines(chunks, max_line_bytes=5))

    expected = text.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert lines == [line if len(line) <= 5 else OverlongLine(len(line)) for line in expected]


def test_a_hundred_megabyte_line_is_not_held() -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"x" * 100_000 for _ in range(1000))
        yield b"\nshort\n"

    tracemalloc.start()
    lines = list(split_lines(chunks(), max_line_bytes=1_000_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert lines == [OverlongLine(100_000_000), b"short"]
    assert peak_bytes < 4_000_000
