"""Runs as plain local processes, without Ray: for tests and laptops.

A run's folder here holds `lock`, `pid`, `exit_code` and `log`. The run's processes inherit a locked descriptor of
`lock`, so the kernel itself says whether any of them lives, to this service or to the one that comes after a `kill -9`:
nothing to be guessed from process ids. The exit code is written by the shell around the trainer, because an adopted
process is nobody's child here.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from schemas.ids import RunId
from service.backends.backend import STOP_GRACE_S, Capacity, RunRequest, RunState, RunStatus
from service.backends.run_lock import hold_lock, is_locked
from service.backends.trainer_command import THREAD_SETTINGS, import_path, local_command
from service.child_environment import child_environment

# The trap keeps the shell alive through a SIGTERM to the whole group, to tell how the trainer took it.
SHELL = 'trap : TERM; echo $$ > "$0/pid"; "$@"; echo $? > "$0/exit_code.tmp"; mv "$0/exit_code.tmp" "$0/exit_code"'
CLOSE_GRACE_S = 10.0
"""How long a run may go on when the service ends."""
CLOSE_POLL_S = 0.05
LOG_TAIL_BYTES = 16_384
LOG_TAIL_LINES = 20

Command = Callable[[RunRequest], list[str]]


def trainer_of(request: RunRequest) -> list[str]:
    return local_command(request.run_folder_uri, workers=request.workers)


class ProcessBackend:
    def __init__(self, work_dir: Path, *, command: Command = trainer_of, stop_grace_s: float = STOP_GRACE_S) -> None:
        self._work_dir = work_dir
        self._command = command
        self._stop_grace_s = stop_grace_s
        self._children: dict[RunId, subprocess.Popen[bytes]] = {}
        self._stop_asked_at: dict[RunId, float] = {}

    def submit(self, request: RunRequest) -> None:
        folder = self._work_dir / request.run_id
        folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder / "lock") as descriptor:
            if descriptor is None or (folder / "pid").exists():
                return
            with (folder / "log").open("ab") as log:
                self._children[request.run_id] = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                    ["/bin/sh", "-c", SHELL, str(folder), *self._command(request)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=child_environment() | {"PYTHONPATH": import_path(), "PYTHONUNBUFFERED": "1"} | THREAD_SETTINGS,
                    start_new_session=True,
                    pass_fds=(descriptor,),
                )

    def status(self, run_id: RunId) -> RunStatus:
        self._reap(run_id)
        folder = self._work_dir / run_id
        if is_locked(folder / "lock"):
            return RunStatus(RunState.RUNNING, "")
        self._stop_asked_at.pop(run_id, None)
        if not (folder / "pid").exists():
            return RunStatus(RunState.UNKNOWN, "")
        return RunStatus(RunState.ENDED, _how_it_ended(folder))

    def stop(self, run_id: RunId) -> None:
        """SIGTERM at the first call, SIGKILL by a later one once the grace is over."""
        self._stop(run_id, grace_s=self._stop_grace_s)

    def _stop(self, run_id: RunId, *, grace_s: float) -> None:
        if self.status(run_id).state is not RunState.RUNNING:
            return
        group = _read_number(self._work_dir / run_id / "pid")
        if group is None:
            return  # the shell has not got that far; the next call finds it
        asked_at = self._stop_asked_at.get(run_id)
        if asked_at is None:
            self._stop_asked_at[run_id] = time.monotonic()
            _signal_group(group, signal.SIGTERM)
        elif time.monotonic() - asked_at > grace_s:
            _kill_tree(group)

    def log_tail(self, run_id: RunId) -> str:
        try:
            with (self._work_dir / run_id / "log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def capacity(self) -> Capacity:
        return Capacity(cpus=os.cpu_count() or 1, gpus=0)

    def close(self) -> None:
        """End every run, adopted ones too, and wait until they are gone."""
        running = [RunId(folder.name) for folder in self._work_dir.glob("*/")]
        while running := [run_id for run_id in running if self.status(run_id).state is RunState.RUNNING]:
            for run_id in running:
                self._stop(run_id, grace_s=min(CLOSE_GRACE_S, self._stop_grace_s))
            time.sleep(CLOSE_POLL_S)

    def _reap(self, run_id: RunId) -> None:
        child = self._children.get(run_id)
        if child is not None and child.poll() is not None:
            del self._children[run_id]


def _how_it_ended(folder: Path) -> str:
    code = _read_number(folder / "exit_code")
    return "killed, no exit code is known" if code is None else f"exit code {code}"


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _signal_group(group: int, signal_number: int) -> None:
    try:
        os.killpg(group, signal_number)
    except ProcessLookupError:
        return


def _kill_tree(group: int) -> None:
    """torchrun's workers have sessions of their own: they are found as descendants before the group goes."""
    try:
        descendants = psutil.Process(group).children(recursive=True)
    except psutil.NoSuchProcess:
        descendants = []
    _signal_group(group, signal.SIGKILL)
    for process in descendants:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
