"""The API behind a real socket, and projects of it: each test gets one of its own."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from openai import OpenAI

from schemas.ids import ProjectId
from service.api.app import create_app
from service.api.readiness import ReadinessCheck
from service.api_keys import hash_api_key, new_api_key
from service.clock import utc_now
from service.db.engine import Database
from service.db.projects import ProjectRepository
from service.db.tables import ApiKeyRow, ProjectRow
from service.identifiers import new_key_id, new_project_id
from service.organization.costs import Prices
from service.registry import BaseModelEntry
from service.serve.http_server import http_server
from service.storage.folder import FolderStore
from service.webhooks.post import WebhookPoster
from service.webhooks.signing import WebhookSigner
from tests.sqlite import new_sqlite_url

MAX_FILE_BYTES = 2_000_000
START_POLL_S = 0.01
SIGNER = WebhookSigner(b"the webhook key of the tests")
POSTER = WebhookPoster(allows_loopback=True)
PRICES = Prices(currency="eur", gpu_hour=3.6, million_tokens=2.0, gib_month=0.73)
REGISTRY = {
    "tiny-llama": BaseModelEntry(uri="/m/tiny", max_length=512, base_learning_rate=1e-3, precision="fp32", gpus=0),
    "large-llama": BaseModelEntry(uri="/m/large", max_length=8192, base_learning_rate=5e-5, gpus=2),
}


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    port: int
    database: Database
    store: FolderStore
    store_root: Path
    anonymous: OpenAI
    """Holds the connections that all clients of this server share: to set up TLS for each would cost 70 ms."""


@dataclass(frozen=True, slots=True)
class ProjectAccess:
    id: ProjectId
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def running_server(
    folder: Path,
    *,
    readiness: Mapping[str, ReadinessCheck] | None = None,
    database_url: str | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Iterator[Server]:
    store = FolderStore(folder / "objects")
    with closing(Database(database_url or new_sqlite_url(folder / "dpo.sqlite3"))) as database:
        app = create_app(
            database=database,
            store=store,
            registry=REGISTRY,
            signer=SIGNER,
            poster=POSTER,
            readiness=readiness,
            max_file_bytes=max_file_bytes,
            prices=PRICES,
        )
        with listening(http_server(app)) as port:
            url = f"http://127.0.0.1:{port}"
            with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as anonymous:
                yield Server(url, port, database, store, folder / "objects", anonymous)


@contextmanager
def listening(server: uvicorn.Server) -> Iterator[int]:
    # The protocol by name: asyncio sets TCP_NODELAY on no other, and each answer would wait 40 ms for an ACK.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(START_POLL_S)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def new_project(database: Database, *, name: str = "default") -> ProjectAccess:
    project_id, key, now = new_project_id(), new_api_key(), utc_now()
    with database.write() as session:
        ProjectRepository(session).add(ProjectRow(id=project_id, name=name, created_at=now))
        row = ApiKeyRow(id=new_key_id(), project_id=project_id, sha256=hash_api_key(key), created_at=now)
        ProjectRepository(session).add_key(row)
    return ProjectAccess(project_id, key)


def openai_client(server: Server, access: ProjectAccess) -> OpenAI:
    return server.anonymous.with_options(api_key=access.key)
