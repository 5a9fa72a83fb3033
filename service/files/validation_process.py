"""Run a file's validation in a process of its own, so that no upload can stall or kill the service.

A plain child rather than `multiprocessing`: its spawn would import the service's own main module, FastAPI and all.
No limit trusts the child: the kernel ends it when the service dies, and this process kills it when it takes too much.
How long it takes by the clock says little of the file: the child waits for busy cores, and for a slow store.
(Out of memory, the Rust under pydantic and jiter can deadlock in its panic hook, holding the GIL.)
"""

import errno
import fcntl
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from tempfile import TemporaryFile

import psutil
from pydantic import TypeAdapter, ValidationError

from service.backends.trainer_command import import_path
from service.child_environment import child_environment
from service.files.validation import FileReport, validate_preferences
from service.storage.object_store import ObjectNotFound
from service.storage.open_store import open_store

CPU_S = 600.0
TIMEOUT_S = 7_200.0
"""Far more than a file within its CPU seconds takes beside busy trainers."""
MEMORY_BYTES = 1024**3
HARD_LIMIT_FACTOR = 4
"""The child's own limit, should this process be stopped and not watch."""
WATCH_INTERVAL_S = 0.05
NICENESS = 5
"""The API answers first when cores are few."""
EXIT_NOT_FOUND = 3
EXIT_OUT_OF_MEMORY = 4
EXIT_PARENT_DIED = 5
EXIT_STORE_FAILED = 6
STDERR_BYTES = 2000
NUMBER_BYTES = 8

REPORT = TypeAdapter(FileReport)


class ValidationProcessFailed(RuntimeError):
    """The file took too much computing or memory: the user's to mend, who is told this after the file's name."""


class ValidationProcessDied(RuntimeError):
    """Something killed or held up the child, the service's own end perhaps, or it broke: no word about the file."""


def validate_in_process(
    storage_url: str,
    key: str,
    *,
    s3_endpoint_url: str | None = None,
    cpu_s: float = CPU_S,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> FileReport:
    """Validate the preference file under `key`. Blocks; safe in any thread.

    Raises: ObjectNotFound; ValidationProcessFailed; ValidationProcessDied; OSError, when the store does not answer.
    """
    with _lifeline() as stdin, TemporaryFile() as file:
        progress = _Progress(file.fileno())
        arguments = [storage_url, s3_endpoint_url or "", key, str(memory_bytes), str(progress.descriptor)]
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-P", "-m", __name__, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment() | {"PYTHONPATH": import_path(), "RUST_BACKTRACE": "0"},
            pass_fds=[progress.descriptor],
            start_new_session=True,  # Ctrl-C is for the service, which then lets go of the lifeline
        )
        with child:
            try:
                output, errors = _watch(
                    child, key, progress, cpu_s=cpu_s, timeout_s=timeout_s, memory_bytes=memory_bytes
                )
            finally:
                child.kill()
        return _read_report(key, progress, child.returncode, output, errors)


def main(arguments: list[str]) -> int:
    """The child: validate, write the report to standard output."""
    storage_url, s3_endpoint_url, key, memory_bytes, progress = arguments
    _end_with_parent()
    os.nice(NICENESS)
    hard_limit_bytes = int(memory_bytes) * HARD_LIMIT_FACTOR
    resource.setrlimit(resource.RLIMIT_AS, (hard_limit_bytes, hard_limit_bytes))
    try:
        store = open_store(storage_url, s3_endpoint_url=s3_endpoint_url or None)
        report = validate_preferences(_Progress(int(progress)).noted(store.stream(key)))
    except ObjectNotFound:
        return EXIT_NOT_FOUND
    except OSError as error:
        sys.stderr.write(str(error))
        return EXIT_STORE_FAILED
    except MemoryError:
        return EXIT_OUT_OF_MEMORY
    sys.stdout.write(json.dumps(asdict(report)))
    return 0


@dataclass(frozen=True, slots=True)
class _Progress:
    """At which line the child is, in a file that both have open: so it is known whatever ends the child."""

    descriptor: int

    def noted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, each once the line that it begins in is noted."""
        line = 1
        for chunk in chunks:
            with suppress(OSError):  # a full disk costs the number, not the validation
                os.pwrite(self.descriptor, line.to_bytes(NUMBER_BYTES), 0)
            yield chunk
            line += chunk.count(b"\n")

    @property
    def line(self) -> int:
        return int.from_bytes(os.pread(self.descriptor, NUMBER_BYTES, 0)) or 1


@contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the reading end of a pipe whose writing end closes with this process."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _watch(
    child: subprocess.Popen[bytes],
    key: str,
    progress: _Progress,
    *,
    cpu_s: float,
    timeout_s: float,
    memory_bytes: int,
) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return child.communicate(timeout=WATCH_INTERVAL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise ValidationProcessDied(f"validation of {key} had not ended after {timeout_s:g} s") from None
            with suppress(psutil.NoSuchProcess):  # it has just ended
                _check_use(psutil.Process(child.pid), progress, cpu_s=cpu_s, memory_bytes=memory_bytes)


def _check_use(process: psutil.Process, progress: _Progress, *, cpu_s: float, memory_bytes: int) -> None:
    """Raises: ValidationProcessFailed."""
    if process.memory_info().rss > memory_bytes:
        raise _out_of_memory(progress)
    used = process.cpu_times()
    if used.user + used.system > cpu_s:
        raise ValidationProcessFailed(
            f"its validation took more than {cpu_s:g} s of computing and was stopped near line {progress.line:,}; "
            "give fewer or shorter rows"
        )


def _end_with_parent() -> None:
    """Have the kernel end this process when the lifeline closes: SIGIO's default, whatever Python is doing then."""
    lifeline = sys.stdin.fileno()
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit(EXIT_PARENT_DIED)  # it closed before we asked


def _read_report(key: str, progress: _Progress, returncode: int, output: bytes, errors: bytes) -> FileReport:
    match returncode:
        case 0:
            try:
                return REPORT.validate_json(output)
            except ValidationError as error:
                raise ValidationProcessDied(f"validation of {key} wrote no report: {error}") from error
        case code if code == EXIT_NOT_FOUND:
            raise ObjectNotFound(f"no object lies under the key {key!r}")
        case code if code == EXIT_OUT_OF_MEMORY:
            raise _out_of_memory(progress)
        case code if code == EXIT_STORE_FAILED:
            raise OSError(errno.EIO, f"the store failed while {key} was validated: {_said(errors)}")
        case code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ValidationProcessDied(f"validation of {key} {how}: {_said(errors) or 'it said nothing'}")


def _said(errors: bytes) -> str:
    return errors[-STDERR_BYTES:].decode(errors="replace").strip()


def _out_of_memory(progress: _Progress) -> ValidationProcessFailed:
    return ValidationProcessFailed(
        f"its validation ran out of memory and was stopped near line {progress.line:,}; give shorter rows"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
