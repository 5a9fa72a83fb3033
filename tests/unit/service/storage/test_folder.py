"""What is a folder's alone: killed writers, full disks, paths."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from service.storage.folder import FolderStore
from service.storage.object_keys import RESERVED_SEGMENT
from service.storage.object_store import StoreError, UnknownStorageUrl
from service.storage.open_store import open_store

WRITER = """
import pathlib, sys
from service.storage.folder import FolderStore
def chunks():
    yield b"x" * 1_000_000
    print("writing", flush=True)
    sys.stdin.read()
FolderStore(pathlib.Path(sys.argv[1])).write("a", chunks())
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of a write."""
    arguments = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """The kernel refuses bytes past 64 KiB, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def parts_in(root: Path) -> list[Path]:
    return list(root.rglob("*.part"))


def test_what_a_killed_writer_left_is_swept(tmp_path: Path, writer: subprocess.Popen[bytes]) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert parts_in(tmp_path)
    store = FolderStore(tmp_path)

    assert store.sweep_leftovers() == 1

    assert parts_in(tmp_path) == []
    assert store.list_keys("") == []


def test_a_sweep_leaves_a_living_writer_alone(tmp_path: Path, writer: subprocess.Popen[bytes]) -> None:
    assert FolderStore(tmp_path).sweep_leftovers() == 0

    writer.communicate(timeout=30)

    assert FolderStore(tmp_path).size_bytes("a") == 1_000_000
    assert parts_in(tmp_path) == []


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)

    with pytest.raises(OSError, match="too large"):
        store.write("files/a", [b"x" * 10_000] * 10)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_deleted_object_leaves_no_folder_and_takes_no_other_with_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for key in ("uploads/a/1", "uploads/a/2", "files/b"):
        store.write(key, [b"x"])
    store.delete("uploads/a/1")
    assert store.read("uploads/a/2") == b"x"
    store.delete("uploads/a/2")
    assert {path.name for path in tmp_path.iterdir()} == {"files", RESERVED_SEGMENT}


def after_making(folder: Path, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `act` come right after the first time that somebody makes the folder, or finds it there."""
    make, acts = os.mkdir, [act]

    def make_and_act(path: Path, mode: int = 0o777) -> None:
        try:
            make(path, mode)
        finally:
            if path == folder and acts:
                acts.pop()()

    monkeypatch.setattr(os, "mkdir", make_and_act)


def test_a_delete_may_take_the_folder_that_a_write_has_just_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    store.write("files/a", [b"x"])
    after_making(tmp_path / "files", lambda: store.delete("files/a"), monkeypatch)
    store.write("files/b", [b"y"])
    assert store.read("files/b") == b"y"


def test_a_delete_may_take_the_folder_above_the_one_that_a_write_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, above = FolderStore(tmp_path), tmp_path / "uploads"
    after_making(above, above.rmdir, monkeypatch)
    store.write("uploads/u/p", [b"y"])
    assert store.read("uploads/u/p") == b"y"


@pytest.mark.parametrize("key", ["file/below", "file/far/below", "link/below", "link/far/below"])
def test_what_is_no_folder_is_not_waited_for(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        FolderStore(tmp_path).write(key, [b"x"])


def test_an_object_that_is_deleted_streams_on(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("a", [b"hello"])
    chunks = store.stream("a", start=1)
    store.delete("a")
    assert b"".join(chunks) == b"ello"


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_stream_that_nobody_reads_to_its_end_holds_no_file(tmp_path: Path, taken: int) -> None:
    store = FolderStore(tmp_path)
    store.write("a", [b"x" * 1_000_000])
    chunks = store.stream("a")
    for _ in range(taken):
        next(chunks)
    del chunks
    assert str(tmp_path / "a") not in [file.path for file in psutil.Process().open_files()]


def test_a_mount_that_has_gone_takes_no_object_for_deleted_and_is_not_written_beneath(tmp_path: Path) -> None:
    root, mounted = tmp_path / "store", tmp_path / "elsewhere"
    store = FolderStore(root)
    store.write("files/a", [b"x"])
    root.rename(mounted)
    root.mkdir()

    for opened in (store, FolderStore(root)):
        for ask in (opened.read, opened.stream, opened.size_bytes, opened.list_keys, opened.delete):
            with pytest.raises(StoreError, match=r"the object store's folder is gone: mount .* again"):
                ask("files/a")
    with pytest.raises(OSError, match="No such file"):
        store.check_writable()
    with pytest.raises(OSError, match="No such file"):
        store.write("files/b", [b"y"])
    assert list(root.iterdir()) == []

    root.rmdir()
    mounted.rename(root)
    store.check_writable()
    assert store.read("files/a") == b"x"


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OSError, match="file"):
        FolderStore(tmp_path / "file" / "store").check_writable()


def test_uris_are_absolute_paths_that_a_trainer_can_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FolderStore(Path("here"))
    store.write("files/a", [b"x"])

    assert store.uri("files/a") == str(tmp_path / "here/files/a")
    assert Path(store.uri("files/a")).read_bytes() == b"x"
    assert store.download_url("files/a", content_disposition="attachment") is None


def test_an_object_is_readable_as_the_users_umask_says(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    old = os.umask(0o022)
    store.write("a", [b"x"])
    os.umask(old)

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_opened_by_path_and_by_url(tmp_path: Path, form: str) -> None:
    root = tmp_path / "with space"
    open_store(form.format(root)).write("a", [b"x"])

    assert (root / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    "url", ["s3://", "s3://no/bucket", "s3://bucket/a//b", "ftp://host/x", "", "file://", "file://host/x", "a\0b"]
)
def test_a_storage_url_of_another_kind_says_what_is_spoken(url: str) -> None:
    with pytest.raises(UnknownStorageUrl, match=r"file://|s3://"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3:/bucket/prefix", "S3:bucket", "file:/srv/objects"])
def test_a_url_that_lacks_a_slash_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownStorageUrl, match="lacks a slash; give s3://bucket/prefix"):
        open_store(url)
    assert list(tmp_path.iterdir()) == []
