"""The child process: its report, its limits, and that nothing survives it."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.files.validation import FileReport
from service.files.validation_process import ValidationProcessDied, ValidationProcessFailed, validate_in_process
from service.storage.folder import FolderStore
from service.storage.object_store import ObjectNotFound

pytestmark = pytest.mark.slow

ROW = b'{"prompt": "x", "chosen": "y", "rejected": "z"}\n'
IMPORTED = """
import sys, service.files.validation_process
print([name for name in ("fastapi", "starlette", "torch", "sqlalchemy", "ray", "boto3") if name in sys.modules])
"""
PARENT = """
import sys
import threading
from service.files.validation_process import validate_in_process
validate_in_process(sys.argv[1], "endless")
"""
COMPUTED_TOO_MUCH = (
    r"^its validation took more than 0\.5 s of computing and was stopped near line 2; give fewer or shorter rows$"
)
NO_MEMORY_LEFT = r"^its validation ran out of memory and was stopped near line 20,001; give shorter rows$"
ENDLESS_BYTES = 10**12


def write_endless_file(root: Path) -> None:
    """A sparse terabyte: a good row, then one line that takes minutes to read past."""
    with (root / "endless").open("wb") as file:
        file.write(ROW)
        file.truncate(ENDLESS_BYTES)


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path)
    store.check_writable()
    return store


def test_the_report_comes_back_from_the_child(store: FolderStore, tmp_path: Path) -> None:
    store.write("files/a", [ROW * 2, b"{}\n"])

    report = validate_in_process(str(tmp_path), "files/a")

    assert isinstance(report, FileReport)
    assert (report.format, report.pairs, report.error_count) == ("trl_explicit", 2, 1)
    assert report.errors[0].line == 3


def test_a_deleted_file_is_told_as_such(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="files/gone"):
        validate_in_process(str(tmp_path), "files/gone")


def test_a_store_that_is_gone_is_told_as_such(store: FolderStore, tmp_path: Path) -> None:
    store.write("files/a", [ROW])
    shutil.rmtree(tmp_path)

    with pytest.raises(OSError, match=r"the store failed .* the object store's folder is gone"):
        validate_in_process(str(tmp_path), "files/a")


def test_a_validation_that_takes_too_much_computing_is_stopped(tmp_path: Path) -> None:
    write_endless_file(tmp_path)

    with pytest.raises(ValidationProcessFailed, match=COMPUTED_TOO_MUCH):
        validate_in_process(str(tmp_path), "endless", cpu_s=0.5)


def test_a_validation_that_is_only_slow_says_nothing_about_the_file(tmp_path: Path) -> None:
    write_endless_file(tmp_path)

    with pytest.raises(ValidationProcessDied, match=r"had not ended after 0\.5 s"):
        validate_in_process(str(tmp_path), "endless", timeout_s=0.5)


def test_a_validation_that_takes_too_much_memory_is_stopped(store: FolderStore, tmp_path: Path) -> None:
    line = ROW.rstrip(b"}\n") + b', "metadata": {"bomb": [' + b"[]," * 2_500_000 + b"[]]}}\n"
    store.write("bomb", [ROW * 20_000, line * 8])

    with pytest.raises(ValidationProcessFailed, match=NO_MEMORY_LEFT):
        validate_in_process(str(tmp_path), "bomb", memory_bytes=120_000_000)


def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValidationProcessDied, match="this build speaks"):
        validate_in_process("nowhere://x", "a")


def test_a_child_that_is_killed_says_nothing_about_the_file(tmp_path: Path) -> None:
    write_endless_file(tmp_path)

    def kill() -> None:
        wait_until(lambda: bool(children()))
        for child in children():
            child.terminate()

    def children() -> set[psutil.Process]:
        return set(psutil.Process().children()) - before

    before = set(psutil.Process().children())
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ValidationProcessDied, match="killed by signal 15"):
        validate_in_process(str(tmp_path), "endless")
    killer.join()


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    write_endless_file(tmp_path)
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)]) as parent:
        watched = psutil.Process(parent.pid)
        wait_until(lambda: bool(watched.children()))
        children = watched.children()
        parent.kill()

    wait_until(lambda: not any(is_running(child) for child in children))


def test_the_child_is_not_left_when_it_is_stopped(tmp_path: Path) -> None:
    write_endless_file(tmp_path)
    before = {child.pid for child in psutil.Process().children()}

    with pytest.raises(ValidationProcessDied):
        validate_in_process(str(tmp_path), "endless", timeout_s=0.3)

    assert {child.pid for child in psutil.Process().children()} == before


def test_the_child_imports_neither_web_nor_torch() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)

    assert ran.stdout == "[]\n"
