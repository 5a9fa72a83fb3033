"""`python -m trainers RUN_FOLDER`: run what the folder's `spec.json` says, under torchrun or not, without a service.

Exits with 0 once there is an outcome (also a failed one), with 143 when SIGTERM stopped it, with 1 on anything that a
new attempt may cure.
"""

import argparse
import logging
import sys

from trainers.errors import RunStopped
from trainers.imports import no_garbage_collection
from trainers.logs import configure_logging, log_event

EXIT_STOPPED = 143
EXIT_FAILED = 1

log = logging.getLogger("trainers")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainers", description="Train from a run folder.")
    parser.add_argument("run_folder", help="a path or s3://bucket/prefix, with spec.json in it")
    folder = parser.parse_args(arguments).run_folder
    configure_logging()
    try:
        with no_garbage_collection():
            from trainers.entrypoint import run
        run(folder)
    except RunStopped as stopped:
        log_event(log, "run_stopped", message=str(stopped))
        return EXIT_STOPPED
    except Exception:
        log.exception("run_failed")
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
