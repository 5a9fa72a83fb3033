"""`dpo-service api` and `dispatcher` as an operator starts them: processes that share a database, a store and runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import httpx2
from openai import APIConnectionError, InternalServerError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from service.db.engine import Database
from tests.contract.server import new_project
from tests.integration.serving import KEY, processes_of, wait_until

Result = TypeVar("Result")
LISTENING = "dpo-service api is listening on "
DISPATCHING = "dpo-service dispatcher "


def run_command(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """To its end."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)


@dataclass(slots=True)
class Replica:
    kind: str
    output_path: Path
    environment: Mapping[str, str]
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _file: IO[bytes] | None = None

    def start(self) -> None:
        self.starts += 1
        self._file = self._path.open("wb")
        options = ["--port", "0"] if self.kind == "api" else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", self.kind, *options],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=os.environ | self.environment,
        )

    @property
    def output(self) -> str:
        return self._path.read_text()

    @property
    def url(self) -> str | None:
        """Of an API that listens."""
        is_up = self.process is not None and self.process.poll() is None and LISTENING in self.output
        return self.output.split(LISTENING, 1)[1].split()[0] if is_up else None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        assert self._file is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._file.close()
        return code

    @property
    def _path(self) -> Path:
        return self.output_path.with_name(f"{self.output_path.name}-{self.starts}.out")


@dataclass(slots=True)
class Replicas:
    environment: Mapping[str, str]
    apis: list[Replica] = field(default_factory=list)
    dispatchers: list[Replica] = field(default_factory=list)

    @property
    def all(self) -> list[Replica]:
        return [*self.apis, *self.dispatchers]

    @contextmanager
    def client(self, key: str = KEY) -> Iterator[OpenAI]:
        """Of whichever API answers, as behind a load balancer."""
        wait_until(lambda: any(api.url for api in self.apis))
        url = next(api.url for api in self.apis if api.url)
        # A process that is killed in the middle of an answer is tried again.
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=httpx2.Timeout(10)) as client:
            yield client


@contextmanager
def replicated(
    folder: Path, database_url: str, models_file: Path, *, lease_s: float, settings: Mapping[str, str] | None = None
) -> Iterator[Replicas]:
    """A migrated database, two APIs and two dispatchers; none of them, nor a run, is left at the end."""
    environment = environment_of(folder, database_url, models_file, lease_s=lease_s) | dict(settings or {})
    migrated = run_command(environment, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    replicas = Replicas(environment)
    for kind, group in (("api", replicas.apis), ("dispatcher", replicas.dispatchers)):
        group.extend(Replica(kind, folder / f"{kind}-{number}", environment) for number in (1, 2))
    try:
        for replica in replicas.all:
            replica.start()
        yield replicas
    finally:
        for replica in replicas.all:
            replica.stop()
        for process in processes_of(folder / "data"):
            process.kill()


def environment_of(folder: Path, database_url: str, models_file: Path, *, lease_s: float = 30) -> dict[str, str]:
    return {
        "DPO_DATA_DIR": str(folder / "data"),
        "DPO_DATABASE_URL": database_url,
        "DPO_STORAGE_URL": str(folder / "data" / "objects"),
        "DPO_MODELS_FILE": str(models_file),
        "DPO_BACKEND": "process",
        "DPO_BOOTSTRAP_KEY": KEY,
        "DPO_WEBHOOK_KEY": "0123456789abcdef" * 2,
        "DPO_LEASE_S": str(lease_s),
        "OMP_NUM_THREADS": "1",
    }


def new_key(url: str, *, name: str = "another") -> str:
    """Of another project."""
    database = Database(url)
    access = new_project(database, name=name)
    database.close()
    return access.key


def retrieved(replicas: Replicas, key: str, job: FineTuningJob) -> FineTuningJob:
    return asked(replicas, key, lambda client: client.fine_tuning.jobs.retrieve(job.id))


def asked(replicas: Replicas, key: str, ask: Callable[[OpenAI], Result]) -> Result:
    """Ask again when the API that was asked is killed meanwhile."""
    while True:
        try:
            with replicas.client(key) as client:
                return ask(client)
        except (APIConnectionError, InternalServerError):
            time.sleep(0.2)
