"""`python -m trainers RUN_FOLDER`: run what the folder's `spec.json` says, under torchrun or not, without a service.

Exits with 0 once there is an outcome (also a failed one), with 143 when SIGTERM stopped it, with 1 on anything that a
new attempt may cure.
"""

import argparse
import sys

from trainers.exit_codes import exit_code_of
from trainers.imports import no_garbage_collection
from trainers.logs import configure_logging


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainers", description="Train from a run folder.")
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
    sys.exit(main(sys.argv[1:]))
