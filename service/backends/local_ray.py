"""A Ray of the service's own, on this machine's loopback, for as long as the service lives.

Ray's daemons listen on every interface whatever they are told, so this one asks for a token that only its own
processes and this service hold. A guardian process ends it all when the service dies in any way; what a killed guardian
left is known by an environment variable naming this data folder, so no other Ray is ever touched.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from service.backends import ray_guardian
from service.backends.backend import BackendUnavailable
from service.backends.ray_http import RayHttp
from service.backends.ray_jobs import DriverCommand, RayJobsBackend
from service.backends.trainer_command import import_path
from service.child_environment import child_environment

START_TIMEOUT_S = 90.0
RAY_GAVE_UP = "timed out during startup"
"""What Ray's log says when its processes were not up within its own 30 s, as on a machine that is busy."""
CLOSE_TIMEOUT_S = 20.0
POLL_S = 0.1
OBJECT_STORE_BYTES = 80 * 1024**2
"""Ray's least: our runs pass nothing through it."""
LOG_LINES = 15
MARKER = "DPO_LOCAL_RAY_OF"
"""Environment variable of every process of this Ray: the work folder of the service it belongs to."""
NODE_ADDRESS = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Ray replaces 127.0.0.1 by the host's outside address; another loopback address it leaves alone."""
SOCKETS_ROOT = "/tmp"  # noqa: S108  # mkdtemp's folder; a longer path overflows AF_UNIX's 107 bytes
PORT_OPTIONS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "ray-client-server-port",
)


class LocalRayFailed(RuntimeError):
    """The local Ray did not come up; the message has its last log lines."""


class LocalRay:
    def __init__(self, work_dir: Path, *, ray_command: tuple[str, ...] | None = None):
        self._work_dir = work_dir
        self._ray_command = ray_command
        self.token = secrets.token_hex(32)
        self._guardian: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self, *, timeout_s: float = START_TIMEOUT_S, stopping: threading.Event | None = None) -> RayJobsBackend:
        """Start it and wait until it takes jobs, or until somebody sets `stopping`. Raises: LocalRayFailed."""
        stopping = stopping or threading.Event()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._try_to_start(timeout_s=timeout_s, stopping=stopping)
            except LocalRayFailed as failure:
                if RAY_GAVE_UP not in str(failure) or time.monotonic() > deadline:
                    raise

    def _try_to_start(self, *, timeout_s: float, stopping: threading.Event) -> RayJobsBackend:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        self.close()  # one that died
        end_leftovers(self._work_dir)
        ports = dict(zip(PORT_OPTIONS, _free_ports(len(PORT_OPTIONS)), strict=True))
        self.address = f"http://127.0.0.1:{ports['dashboard-port']}"
        folder = Path(tempfile.mkdtemp(prefix="dpo-ray-", dir=SOCKETS_ROOT))
        python = python_for_ray(folder)
        self._guardian = guardian = self._spawn(folder, python, ports)
        jobs = RayJobsBackend(self.http, DriverCommand(python, import_path()))
        self._wait_until_up(jobs, guardian, timeout_s=timeout_s, stopping=stopping)
        return jobs

    @property
    def http(self) -> RayHttp:
        return RayHttp(self.address, token=self.token)

    def is_alive(self) -> bool:
        return self._guardian is not None and self._guardian.poll() is None

    def close(self) -> None:
        """End every process of it; returns when they are gone."""
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        assert guardian.stdin is not None
        guardian.stdin.close()
        try:
            guardian.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()
        end_leftovers(self._work_dir)

    def _spawn(self, folder: Path, python: str, ports: dict[str, int]) -> "subprocess.Popen[bytes]":
        (self._work_dir / "folder").write_text(str(folder))
        ray = self._ray_command or (python, "-m", "ray.scripts.scripts")
        command = [*ray, "start", *_start_options(folder, ports)]
        with self._log_path.open("wb") as log:
            return subprocess.Popen(  # noqa: S603  # our own interpreter
                [sys.executable, ray_guardian.__file__, str(folder), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment_of_ray(self._work_dir, self.token),
                start_new_session=True,  # Ctrl-C is for the service
            )

    def _wait_until_up(
        self,
        jobs: RayJobsBackend,
        guardian: "subprocess.Popen[bytes]",
        *,
        timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        """Asked for here too, whether it is to stop: who closed it a moment ago may have found no guardian to end."""
        deadline = time.monotonic() + timeout_s
        while guardian.poll() is None:
            try:
                jobs.capacity()
                return
            except BackendUnavailable:
                if time.monotonic() > deadline:
                    self.close()
                    raise LocalRayFailed(self._explain(f"did not come up within {timeout_s:g} s")) from None
                if stopping.wait(POLL_S):
                    break
        self.close()
        raise LocalRayFailed(self._explain(f"ended while it started, with exit code {guardian.returncode}"))

    def _explain(self, what: str) -> str:
        lines = self._log_path.read_text(errors="replace").splitlines()[-LOG_LINES:]
        said = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        return (
            f"the local Ray {what}. Its last lines ({self._log_path}):\n{said}\n"
            "Mend that, or set DPO_RAY_ADDRESS to a running cluster, or DPO_BACKEND=process to train without Ray."
        )

    @property
    def _log_path(self) -> Path:
        return self._work_dir / "ray.log"


def python_for_ray(folder: Path) -> str:
    """Return this interpreter by a path that Ray can use: it splits its workers' command lines at spaces."""
    if " " not in sys.executable:
        return sys.executable
    link = folder / "python"
    link.symlink_to(sys.prefix, target_is_directory=True)
    return str(link / Path(sys.executable).relative_to(sys.prefix))


def end_leftovers(work_dir: Path) -> None:
    """End what a former service of this work folder, killed together with its guardian, left running."""
    leftovers = [process for process in psutil.process_iter() if _belongs_to(process, work_dir)]
    for process in leftovers:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(leftovers, timeout=CLOSE_TIMEOUT_S)
    note = work_dir / "folder"
    if note.exists() and Path(note.read_text()).name.startswith("dpo-ray-"):
        shutil.rmtree(note.read_text(), ignore_errors=True)
    note.unlink(missing_ok=True)


def _belongs_to(process: psutil.Process, work_dir: Path) -> bool:
    try:
        return bool(process.environ().get(MARKER) == str(work_dir)) and process.pid != os.getpid()
    except psutil.Error:
        return False


def _start_options(folder: Path, ports: dict[str, int]) -> list[str]:
    return [
        "--head",
        "--block",
        "--disable-usage-stats",
        "--dashboard-host=127.0.0.1",
        f"--node-ip-address={NODE_ADDRESS}",
        f"--temp-dir={folder}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        *(f"--{option}={port}" for option, port in ports.items()),
    ]


def environment_of_ray(work_dir: Path, token: str) -> dict[str, str]:
    own = {
        MARKER: str(work_dir),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",  # idle workers that a run in the driver never uses
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "PYTHONUNBUFFERED": "1",
    }
    inherited = {name: value for name, value in child_environment().items() if not name.startswith("RAY_")}
    # Ray itself sets OMP_NUM_THREADS for every process, so the user's own choice needs another name to get through.
    threads = {"DPO_CPU_THREADS": os.environ["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in os.environ else {}
    return inherited | threads | own


def _free_ports(count: int) -> list[int]:
    """From the kernel's ephemeral range, above Ray's own 10002 to 19999; all held until all are chosen."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
