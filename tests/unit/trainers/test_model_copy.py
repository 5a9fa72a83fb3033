"""A model in a bucket is copied once a machine, and goes with the last one that uses it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from tests.buckets import Bucket
from trainers import model_copy
from trainers.errors import UnusableModel
from trainers.model_copy import local_copy
from trainers.run_folder import RunFolder

pytestmark = pytest.mark.slow

USER = """
import sys
from trainers.model_copy import local_copy
with local_copy(sys.argv[1]) as copy:
    print((copy / "config.json").read_text(), flush=True)
    sys.stdin.read()
"""

KILLED_WHILE_IT_REMOVES = """
import os, signal, sys
from trainers.model_copy import local_copy

def unlink_and_die(*arguments, really=os.unlink, **options):
    really(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

with local_copy(sys.argv[1]):
    os.unlink = unlink_and_die
"""


@pytest.fixture
def model(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A model in the bucket, and a temporary folder of this test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(model_copy.tempfile, "tempdir", None)
    folder = RunFolder(f"{bucket.url}/models/tiny")
    folder.write("config.json", b"{}")
    folder.write("original/params.json", b"[]")
    return folder.uri


def test_a_local_folder_is_its_own_copy(tmp_path: Path) -> None:
    with local_copy(str(tmp_path)) as copy:
        assert copy == tmp_path


@pytest.mark.parametrize(("name", "found"), [("nowhere", "nothing"), ("file", "a file, and no folder,")])
def test_a_place_without_a_folder_is_told(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UnusableModel, match=rf"^{found} lies at {tmp_path / name}; mend its uri"),
        local_copy(str(tmp_path / name)),
    ):
        pass


def test_a_place_in_a_bucket_without_a_folder_is_told(model: str) -> None:
    with (
        pytest.raises(UnusableModel, match=rf"^nothing lies at {model}/nowhere; mend its uri"),
        local_copy(f"{model}/nowhere"),
    ):
        pass


def test_a_folder_in_a_bucket_is_copied_for_as_long_as_it_is_needed(model: str) -> None:
    with local_copy(model) as copy:
        assert (copy / "config.json").read_bytes() == b"{}"
        assert (copy / "original" / "params.json").read_bytes() == b"[]"
    assert not copy.exists()


def test_a_folder_without_folders_is_copied(model: str) -> None:
    RunFolder(model).delete_folder("original")
    with local_copy(model) as copy:
        assert [path.name for path in copy.iterdir()] == ["config.json"]


def test_workers_of_one_machine_share_a_copy_until_the_last_one_leaves(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_copy(model) as first:
        monkeypatch.setattr(fs, "copy_files", lambda *_, **__: pytest.fail("downloaded again"))
        with local_copy(model) as second:
            assert second == first
        assert (first / "config.json").exists()
    assert not first.exists()


def test_workers_that_come_at_once_all_get_it_whole(model: str, tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", USER, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == [b"{}\n"] * 3
    assert [path.suffix for path in tmp_path.glob("dpo-models-*/*")] == [".lock"]


def test_what_a_killed_worker_left_is_used_and_removed_by_the_next(model: str, tmp_path: Path) -> None:
    left = leave_by_a_kill(model, tmp_path)
    with local_copy(model) as copy:
        assert copy == left
    assert not left.exists()


def leave_by_a_kill(model: str, tmp_path: Path) -> Path:
    arguments = [sys.executable, "-c", USER, model]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"{}\n"
        worker.kill()
    [left] = [path for path in tmp_path.glob("dpo-models-*/*") if path.is_dir()]
    return left


def test_what_was_left_of_a_model_that_has_changed_since_is_not_used_but_removed(model: str, tmp_path: Path) -> None:
    left = leave_by_a_kill(model, tmp_path)
    RunFolder(model).write("config.json", b'{"changed": true}')
    with local_copy(model) as copy:
        assert (copy / "config.json").read_bytes() == b'{"changed": true}'
        assert not left.exists()
    assert not copy.exists()


def leave_half_removed(model: str) -> None:
    worker = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_REMOVES, model], check=False)
    assert worker.returncode == -signal.SIGKILL


def test_what_was_half_removed_by_a_killed_worker_is_not_used(model: str, tmp_path: Path) -> None:
    leave_half_removed(model)
    with local_copy(model) as copy:
        assert sorted(path.name for path in copy.rglob("*.json")) == ["config.json", "params.json"]
    assert [path.suffix for path in tmp_path.glob("dpo-models-*/*")] == [".lock"]


def test_what_was_half_removed_of_a_former_model_is_removed_with_it(model: str, tmp_path: Path) -> None:
    leave_half_removed(model)
    RunFolder(model).write("config.json", b'{"changed": true}')
    with local_copy(model) as copy:
        assert [path for path in tmp_path.glob("dpo-models-*/*") if path.is_dir()] == [copy]


def test_a_model_that_changes_leaves_those_their_copy_who_use_it(model: str) -> None:
    with local_copy(model) as former:
        RunFolder(model).write("config.json", b'{"changed": true}')
        with local_copy(model) as copy:
            assert copy != former
        assert (former / "config.json").read_bytes() == b"{}"
    assert not former.exists()


def test_a_download_that_was_killed_half_way_begins_anew(model: str) -> None:
    with local_copy(model) as copy:
        pass
    half = copy.with_suffix(".part")
    half.mkdir()
    (half / "stale").touch()
    with local_copy(model) as copy:
        assert sorted(path.name for path in copy.iterdir()) == ["config.json", "original"]
