"""The API in a process of its own, for measuring it: prints its URL and a key, ends when stdin does."""

import sys
from pathlib import Path

from schemas.files import MAX_FILE_BYTES
from service.api.app import create_app
from service.db.engine import Database
from service.serve.http_server import http_server
from service.storage.folder import FolderStore
from service.telemetry.logs import configure_logging
from tests.contract.server import POSTER, REGISTRY, SIGNER, listening, new_project
from tests.sqlite import new_sqlite_url


def main(folder: Path) -> None:
    configure_logging()
    database = Database(new_sqlite_url(folder / "dpo.sqlite3"))
    store = FolderStore(folder / "objects")
    app = create_app(
        database=database,
        store=store,
        registry=REGISTRY,
        signer=SIGNER,
        poster=POSTER,
        max_file_bytes=MAX_FILE_BYTES,
    )
    with listening(http_server(app)) as port:
        print(f"http://127.0.0.1:{port}", new_project(database).key, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
