"""A whole file: what passes, and what each kind of wrong file is told."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.files.validation import LISTED_ERRORS, FileReport, LineError, validate_preferences

DATA = Path(__file__).parents[3] / "data"
BOM = b"\xef\xbb\xbf"


def row(chosen: str = "y", rejected: str = "z") -> bytes:
    return json.dumps({"prompt": "x", "chosen": chosen, "rejected": rejected}).encode() + b"\n"


def message_row() -> bytes:
    user = {"role": "user", "content": "x"}
    sides = ([user, {"role": "assistant", "content": text}] for text in "yz")
    return json.dumps(dict(zip(("chosen", "rejected"), sides, strict=True))).encode() + b"\n"


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows.jsonl", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "row_format", "pairs"), [("hh-rlhf-64.jsonl", "hh_rlhf", 64), ("alpaca-eval-40.jsonl", "openai", 40)]
)
def test_real_files_are_valid(name: str, row_format: str, pairs: int) -> None:
    report = validate_preferences([(DATA / name).read_bytes()])

    assert report.is_valid
    assert (report.format, report.pairs, report.equal_pairs) == (row_format, pairs, 0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(row() * 2, id="plain"),
        pytest.param(BOM + row() * 2, id="byte order mark"),
        pytest.param((row() * 2).replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param((row() * 2).rstrip(), id="no last newline"),
        pytest.param(b"\n" + row() + b"  \t\r\n\n" + row() + b"\n\n", id="blank lines"),
        pytest.param(b" " + row() + b"\t" + row(), id="indented"),
    ],
)
def test_harmless_differences_are_accepted(content: bytes) -> None:
    assert validate_preferences([content]) == FileReport("trl_explicit", 2, 0, 1, 0, (), 0)


BAD_FILES = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \r\n\n", "is empty or has blank lines alone"),
    "only a mark": (BOM, "is empty"),
    "json array": (b"[\n" + row() + b"]", "is a JSON array; write its items one a line"),
    "pretty json": (json.dumps(json.loads(row()), indent=2).encode(), "is JSON spread over several lines"),
    "csv": (b"prompt,chosen,rejected\nx,y,z\n", "looks like CSV"),
    "tsv": (b"prompt\tchosen\trejected\n", "looks like CSV or TSV"),
    "html": (b"<!doctype html>", "looks like HTML"),
    "gzip": (gzip.compress(row()), "is gzip-compressed; decompress it"),
    "zip": (zipped(row()), "is a zip archive; unpack it"),
    "parquet": (b"PAR1" + b"\x15\x04" * 40, "is a Parquet file; convert it"),
    "utf-16": (row().decode().encode("utf-16"), "is UTF-16"),
    "utf-16 without a mark": (row().decode().encode("utf-16-le"), "has NUL bytes at its start"),
    "utf-16 big": (row().decode().encode("utf-16-be"), "has NUL bytes at its start"),
    "every row equal": (row("y", "y") * 3, "has the same chosen and rejected answer in every row"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_is_no_preference_file_says_what_it_looks_like(content: bytes, words: str) -> None:
    report = validate_preferences([content])

    assert (report.error_count, [error.line for error in report.errors]) == (1, [None])
    assert report.summary().startswith(f"the file {words}")


def test_equal_pairs_are_counted_and_forgiven() -> None:
    assert validate_preferences([row("y", "y") + row()]) == FileReport("trl_explicit", 2, 1, 0, 0, (), 0)


def test_pairs_that_come_again_and_pairs_that_contradict_are_counted() -> None:
    report = validate_preferences(
        [row("a", "b") + row("c", "d") + row("a", "b") + row("b", "a") * 2 + row("y", "y") * 2]
    )
    assert (report.pairs, report.repeated_pairs, report.contradictory_pairs) == (7, 2, 2)
    assert report.is_valid


def test_answers_to_other_prompts_or_with_other_tools_contradict_nothing() -> None:
    other_prompt = row("b", "a").replace(b'"prompt": "', b'"prompt": "Another: ')
    report = validate_preferences([row("a", "b") + other_prompt])
    assert (report.pairs, report.repeated_pairs, report.contradictory_pairs) == (2, 0, 0)


def test_an_error_tells_the_line_as_an_editor_counts_it() -> None:
    report = validate_preferences([b"\n" + row() + b"\r\n" + row(rejected="") + row()])

    assert report.errors == (LineError(4, "rejected", "is empty; give text, or remove the pair"),)
    assert report.summary() == 'line 4: "rejected" is empty; give text, or remove the pair'
    assert report.pairs == 2


def test_the_summary_shows_the_first_errors_and_counts_the_rest() -> None:
    report = validate_preferences([row() + row(chosen="") * 5])

    assert report.summary().startswith('line 2: "chosen" is empty')
    assert "line 4: " in report.summary()
    assert "line 5: " not in report.summary()
    assert report.summary().endswith(" (and 2 more; the first 5 are among the job's events)")


def test_the_first_hundred_errors_are_listed_and_all_are_counted() -> None:
    report = validate_preferences([b"{}\n" * 250])

    assert [error.line for error in report.errors] == list(range(1, LISTED_ERRORS + 1))
    assert report.error_count == 250


def test_mixed_formats_are_an_error_on_the_lines_that_differ() -> None:
    report = validate_preferences([row() + message_row() + row()])

    assert (report.format, report.pairs, report.error_count) == ("trl_explicit", 2, 1)
    assert report.summary() == (
        "line 2: the row is in the format trl_implicit while the file's is trl_explicit; use one format a file"
    )


def test_the_format_is_that_of_the_first_readable_row() -> None:
    report = validate_preferences([b"{}\n" + message_row()])

    assert (report.format, report.pairs, report.error_count) == ("trl_implicit", 1, 1)


def test_a_line_that_is_not_utf8_tells_the_offset() -> None:
    report = validate_preferences([row() + row("caf\u00e9").replace(rb"\u00e9", b"\xe9")])

    assert report.summary().startswith("line 2: the row is not UTF-8: byte 0xe9 at offset 30 of the line")


def test_an_overlong_line_is_an_error_and_the_rest_is_checked() -> None:
    report = validate_preferences([row() + row("y" * 500) + row(rejected="")], max_line_bytes=200)

    assert [(error.line, error.field) for error in report.errors] == [(2, None), (3, "rejected")]
    assert "bytes, more than 200" in report.errors[0].reason


@settings(deadline=None, max_examples=50)
@given(
    lines=st.lists(st.sampled_from([row(), row(""), message_row(), b"\n", b"\r\n", b"{\n", b"\xff\n", BOM])),
    sizes=st.lists(st.integers(1, 40), min_size=1),
)
def test_the_report_is_the_same_however_the_file_was_cut(lines: list[bytes], sizes: list[int]) -> None:
    content = b"".join(lines)
    chunks, start = [], 0
    while start < len(content):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(content[start : start + size])
        start += size

    assert validate_preferences(chunks) == validate_preferences([content])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_report(content: bytes) -> None:
    assert validate_preferences([content]).summary() != ""
