"""`python -m trainers RUN_FOLDER`: run what the folder's `spec.json` says, under torchrun or not, without a service.

Exits with 0 once there is an outcome, also a failed one: `outcome.json` tells why, the log's last line which. With 143
when SIGTERM stopped it, with 2 where `spec.json` cannot be used, with 1 on anything that a new attempt may cure.
"""

import argparse
import sys

from trainers.exit_codes import exit_code_of, leave
from trainers.imports import no_garbage_collection
from trainers.logs import configure_logging

EXIT_CODES = (
    "Exit code 0: the run has ended, well or not; the log's last line tells which, outcome.json in the folder why. A "
    "folder with an outcome.json is not trained again. 2: spec.json cannot be used. 143: stopped by SIGTERM. 1: "
    "anything else. After 143 and 1 run it again: it goes on from its last checkpoint."
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainers", description="Train from a run folder.", epilog=EXIT_CODES
    )
    parser.add_argument("run_folder", help="a path or s3://bucket/prefix, with spec.json in it")
    folder = parser.parse_args(arguments).run_folder
    configure_logging()
    return exit_code_of(lambda: _run(folder))


def _run(folder: str) -> int:
    with no_garbage_collection():
        from trainers.entrypoint import run
    run(folder)
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
