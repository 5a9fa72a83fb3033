"""How a trainer's process ends: the one place that catches everything, for both of its commands."""

import logging
import sys
from collections.abc import Callable

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
