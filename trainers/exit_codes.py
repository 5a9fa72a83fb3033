"""How a trainer's process ends: the one place that catches everything, for both of its commands."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from trainers.errors import RunStopped, UnreadableSpec
from trainers.logs import log_event

EXIT_STOPPED = 143
EXIT_NO_OUTCOME = 70
EXIT_FAILED = 1
EXIT_USAGE = 2
"""argparse's own, of a command line that cannot be right."""

log = logging.getLogger("trainers")


def exit_code_of(act: Callable[[], int]) -> int:
    """Return what `act` returns, or the code of what it raises, which is logged."""
    try:
        return act()
    except RunStopped as stopped:
        log_event(log, "run_stopped", message=str(stopped))
        return EXIT_STOPPED
    except UnreadableSpec as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    except Exception:
        log.exception("run_failed")
        return EXIT_FAILED


def leave(exit_code: int) -> NoReturn:
    """End the process without tearing the interpreter down.

    PyTorch's caches hold the process group of a sharded base to the process's end, and one of Gloo's threads that lets
    go of a tensor while Python is finalized aborts the process (pytorch/pytorch#179291): torchrun would take a run with
    an outcome for a failed one.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
