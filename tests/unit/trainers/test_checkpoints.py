"""Checkpoints: whole ones are found, others are passed over."""

from pathlib import Path

import pytest

from schemas.run_layout import MANIFEST, checkpoint_prefix
from trainers.checkpoints import newest_whole, prune, write_checkpoint
from trainers.run_folder import RunFolder


def write(folder: RunFolder, *steps: int) -> None:
    for step in steps:
        write_checkpoint(folder, step, {"a/weights": b"w%d" % step, "state": b"s"}, before_commit=lambda: None)


def newest_step(*folders: RunFolder) -> int | None:
    found = newest_whole(folders)
    return None if found is None else found.step


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


def test_the_newest_is_found_with_its_files(folder: RunFolder) -> None:
    write(folder, 2, 10, 9)
    found = newest_whole([folder])
    assert found is not None
    assert (found.step, dict(found.files)) == (10, {"a/weights": b"w10", "state": b"s"})


def test_a_folder_without_any_has_none(folder: RunFolder) -> None:
    assert newest_step(folder) is None


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing", "manifest of garbage", "no manifest"])
def test_a_damaged_one_is_passed_over_for_the_one_before(folder: RunFolder, damage: str) -> None:
    write(folder, 4, 8)
    prefix = checkpoint_prefix(8)
    match damage:
        case "flipped bit":
            folder.write(f"{prefix}/a/weights", b"w9")
        case "truncated":
            folder.write(f"{prefix}/state", b"")
        case "missing":
            folder.delete(f"{prefix}/state")
        case "manifest of garbage":
            folder.write(f"{prefix}/{MANIFEST}", b"{")
        case _:
            folder.delete(f"{prefix}/{MANIFEST}")
    assert newest_step(folder) == 4


def test_a_kill_before_the_commit_leaves_no_checkpoint(folder: RunFolder) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(folder, 3, {"state": b"s"}, before_commit=killed)
    assert newest_step(folder) is None
    write(folder, 3)
    assert newest_step(folder) == 3


def test_the_runs_own_checkpoint_goes_before_an_earlier_attempts(tmp_path: Path, folder: RunFolder) -> None:
    earlier = RunFolder(str(tmp_path / "earlier"))
    write(earlier, 9)
    assert newest_step(folder, earlier) == 9
    write(folder, 5)
    assert newest_step(folder, earlier) == 5


def test_the_newest_two_and_the_kept_ones_stay(folder: RunFolder) -> None:
    write(folder, 1, 2, 3, 4, 5)
    prune(folder, is_kept=lambda step: step == 2)
    names = {name.split("/")[1] for name in folder.names("checkpoints")}
    assert names == {"step-00000002", "step-00000004", "step-00000005"}
