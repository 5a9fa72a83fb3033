"""Reading a preference file: lines are counted as an editor counts them."""

import hashlib

import pytest

from schemas.preference_rows import RowFormat
from trainers.data.preference_dataset import PreferenceRow, read_rows
from trainers.errors import InvalidTrainingFile, InvalidValidationFile

ROW = b'{"prompt": "a", "chosen": "b", "rejected": "c"}'


def read(content: bytes, row_format: RowFormat = "trl_explicit") -> list[PreferenceRow]:
    sha256 = hashlib.sha256(content).hexdigest()
    return list(read_rows(content, row_format=row_format, sha256=sha256, error=InvalidTrainingFile))


def test_blank_lines_count_but_are_no_rows() -> None:
    assert [row.line for row in read(b"\n" + ROW + b"\r\n\n  \n" + ROW)] == [2, 5]


def test_a_byte_order_mark_is_no_part_of_the_row() -> None:
    assert read(b"\xef\xbb\xbf" + ROW)[0].pair.prompt == "a"


def test_a_separator_of_unicode_is_not_the_end_of_a_line() -> None:
    assert read('{"prompt": "a\u2028b", "chosen": "b", "rejected": "c"}'.encode())[0].pair.prompt == "a\u2028b"


def test_a_row_that_cannot_be_read_names_its_line() -> None:
    with pytest.raises(InvalidTrainingFile, match="line 2: "):
        read(ROW + b'\n{"prompt": "a"}')


def test_a_file_that_changed_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidValidationFile, match="validation_file has the sha256"):
        read_rows(ROW, row_format="trl_explicit", sha256="0" * 64, error=InvalidValidationFile)
