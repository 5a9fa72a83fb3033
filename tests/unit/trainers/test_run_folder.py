"""The run folder: whole files or none."""

import os
from pathlib import Path

import pytest

from trainers.run_folder import RunFolder, local_copy


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


def test_what_is_written_is_read_and_listed(folder: RunFolder) -> None:
    folder.write("b/two", b"2")
    folder.write("b/c/three", b"3")
    folder.write("one", b"1")
    assert folder.read("b/c/three") == b"3"
    assert folder.names("b") == ["b/c/three", "b/two"]
    assert folder.exists("one")
    assert not folder.exists("b")


def test_a_missing_folder_has_no_names(folder: RunFolder) -> None:
    assert folder.names("events") == []


def test_a_missing_file_is_told(folder: RunFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.read("spec.json")
    folder.delete("spec.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("outcome.json", b"old")

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("outcome.json", b"new")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["outcome.json"]
    assert folder.read("outcome.json") == b"old"


def test_what_a_kill_left_half_written_is_in_no_listing(folder: RunFolder, tmp_path: Path) -> None:
    folder.write("events/00000001.jsonl", b"{}\n")
    (tmp_path / "run" / "events" / ".00000002.jsonl.4711").write_bytes(b"{")
    assert folder.names("events") == ["events/00000001.jsonl"]


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("training.jsonl", "/runs/1/training.jsonl"),
        ("/models/tiny", "/models/tiny"),
        ("s3://bucket/files/1", "s3://bucket/files/1"),
    ],
)
def test_uris_are_absolute_or_relative_to_the_folder(uri: str, resolved: str) -> None:
    assert RunFolder("/runs/1/").resolve(uri) == resolved


def test_a_local_folder_is_its_own_copy(tmp_path: Path) -> None:
    with local_copy(str(tmp_path)) as copy:
        assert copy == tmp_path
