"""The API in a process of its own, for measuring it: prints its URL and a key, ends when stdin does."""

import sys
from pathlib import Path

from schemas.files import MAX_FILE_BYTES
from service.telemetry.logs import configure_logging
from tests.contract.server import new_project, running_server


def main(folder: Path) -> None:
    configure_logging()
    with running_server(folder, max_file_bytes=MAX_FILE_BYTES) as server:
        print(server.url, new_project(server.database).key, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
