"""A local Ray's guardian: `python ray_guardian.py FOLDER COMMAND…` runs the command until its standard input closes.

The service holds the other end of that pipe, so however it dies (`kill -9` too) the guardian notices and ends every
process of that Ray. It is their subreaper: whatever they fork, detach or orphan stays its descendant, and nothing else
can be. It imports nothing of ours: it must outlive an upgrade of the files under it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
KILL_ROUNDS = 20


def main(arguments: list[str]) -> int:
    folder, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ray = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  # the service's own command
    signal.signal(signal.SIGTERM, lambda *_: ray.kill())
    threading.Thread(target=_end_with_service, args=(ray,), daemon=True).start()
    code = ray.wait()
    _kill_descendants()
    shutil.rmtree(Path(folder), ignore_errors=True)
    return code


def _end_with_service(ray: "subprocess.Popen[bytes]") -> None:
    """Nobody writes to the pipe: reading ends with the service. Nothing in this Ray is worth a slow goodbye."""
    os.read(0, 1)
    ray.kill()


def _kill_descendants() -> None:
    """Again and again: a process may fork while it is being counted."""
    for _ in range(KILL_ROUNDS):
        remaining = psutil.Process().children(recursive=True)
        if not remaining:
            return
        for process in remaining:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(remaining, timeout=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
