"""A run is asked to stop: by SIGTERM, or by the mark that a driver leaves for workers it cannot signal."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.run_layout import STOP
from trainers.run_folder import RunFolder
from trainers.stop_signal import StopMark, listening_for_stop, mark_stop_on_sigterm


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path))


@pytest.fixture(autouse=True)
def _same_handler_afterwards() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_a_request_while_the_context_lasts(folder: RunFolder) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening_for_stop(folder) as stop:
        assert not stop.is_requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_requested
    assert signal.getsignal(signal.SIGTERM) is before


def test_off_the_main_thread_the_drivers_mark_is_the_request(folder: RunFolder) -> None:
    seen: list[bool] = []

    def work() -> None:
        with listening_for_stop(folder) as stop:
            seen.append(stop.is_requested)
        has_looked.set()
        mark_made.wait()
        with listening_for_stop(folder) as stop:
            seen.append(stop.is_requested)

    has_looked, mark_made = threading.Event(), threading.Event()
    worker = threading.Thread(target=work)
    mark_stop_on_sigterm(folder)
    worker.start()
    has_looked.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    mark_made.set()
    worker.join()
    assert seen == [False, True]
    assert folder.exists(STOP)


def test_the_mark_is_looked_for_once_a_second(folder: RunFolder) -> None:
    now = 100.0
    stop = StopMark(folder, clock=lambda: now)
    assert not stop.is_requested
    folder.write(STOP, b"")
    assert not stop.is_requested
    now += 1.0
    assert stop.is_requested
