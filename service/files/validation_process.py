"""Run a file's validation in a process of its own, so that no upload can stall or kill the service.

A plain child rather than `multiprocessing`: its spawn would import the service's own main module, FastAPI and all.
The child watches its standard input, whose other end this process holds: when the service dies, however, it ends.
"""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from service.files.validation import FileReport, validate_preferences
from service.storage.object_store import ObjectNotFound
from service.storage.open_store import open_store

TIMEOUT_S = 600.0
MEMORY_BYTES = 1024**3
NICENESS = 5
"""The API answers first when cores are few."""
EXIT_NOT_FOUND = 3
EXIT_OUT_OF_MEMORY = 4
EXIT_PARENT_DIED = 5
STDERR_BYTES = 2000

REPORT = TypeAdapter(FileReport)


class ValidationProcessFailed(RuntimeError):
    """The validation ended without a report: too slow, too large, or killed."""


def validate_in_process(
    storage_url: str, key: str, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES
) -> FileReport:
    """Validate the preference file under `key`. Blocks; safe in any thread.

    Raises: ObjectNotFound; ValidationProcessFailed.
    """
    arguments = [storage_url, key, str(memory_bytes)]
    with _lifeline() as stdin:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-P", "-m", __name__, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": _import_path()},
            start_new_session=True,  # Ctrl-C is for the service, which then lets go of the lifeline
        )
        with child:
            try:
                output, errors = child.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                raise ValidationProcessFailed(
                    f"validation of {key} took longer than {timeout_s:g} s and was stopped; split the file"
                ) from error
            finally:
                child.kill()
    return _read_report(key, child.returncode, output, errors)


def main(arguments: list[str]) -> int:
    """The child: validate, write the report to standard output."""
    storage_url, key, memory_bytes = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    try:
        report = validate_preferences(open_store(storage_url).stream(key))
    except ObjectNotFound:
        return EXIT_NOT_FOUND
    except MemoryError:
        return EXIT_OUT_OF_MEMORY
    sys.stdout.write(json.dumps(asdict(report)))
    return 0


@contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the reading end of a pipe whose writing end closes with this process."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(EXIT_PARENT_DIED)


def _import_path() -> str:
    """Where this package lies, first: the child must run this code, installed or not."""
    root = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{inherited}" if inherited else root


def _read_report(key: str, returncode: int, output: bytes, errors: bytes) -> FileReport:
    match returncode:
        case 0:
            try:
                return REPORT.validate_json(output)
            except ValidationError as error:
                raise ValidationProcessFailed(f"validation of {key} wrote no report: {error}") from error
        case code if code == EXIT_NOT_FOUND:
            raise ObjectNotFound(f"no object lies under the key {key!r}")
        case code if code == EXIT_OUT_OF_MEMORY:
            raise ValidationProcessFailed(f"validation of {key} ran out of memory; give shorter rows")
        case code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            said = errors[-STDERR_BYTES:].decode(errors="replace").strip()
            raise ValidationProcessFailed(f"validation of {key} {how}: {said or 'it said nothing'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
