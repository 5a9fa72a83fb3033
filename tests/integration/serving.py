"""`dpo-service serve` as a user starts it, in a process of its own, with a tiny model; the stock client talks to it."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import psutil
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

KEY = "sk-dpo-of-the-integration-tests-alone"
DEADLINE_S = 300.0
"""For whatever is waited for: a machine that runs other tests beside takes a minute to start two workers."""
GZIP_MAGIC = b"\x1f\x8b"
POLL_S = 0.5
TRAINERS = "-m trainers"
"""Of a trainer's command, and of the shell's around it."""
LISTENING = "dpo-service is listening on "
PAIRS = "".join(
    f'{{"prompt": "Question {n}?", "chosen": "The answer is {n}.", "rejected": "I will not say {n}."}}\n'
    for n in range(16)
).encode()


class Serve:
    def __init__(self, data_dir: Path, models_file: Path, *options: str, threads: int | None = 1) -> None:
        self.data_dir = data_dir
        self._output = data_dir.with_suffix(".out")
        self._file: IO[bytes] = self._output.open("wb")
        threading = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--data-dir", str(data_dir), "--port", "0", *options],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"DPO_BOOTSTRAP_KEY": KEY, "DPO_MODELS_FILE": str(models_file)} | threading,
        )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def client(self) -> OpenAI:
        """Waits until it listens."""
        wait_until(lambda: LISTENING in self.output or self.process.poll() is not None)
        assert LISTENING in self.output, self.output
        url = self.output.split(LISTENING, 1)[1].split()[0]
        return OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=5)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._file.close()
        return code


@contextmanager
def serving(data_dir: Path, models_file: Path, *options: str, threads: int | None = 1) -> Iterator[Serve]:
    """`threads`: OpenMP's in each trainer, one being enough for a tiny model. None: what a user's trainers get."""
    serve = Serve(data_dir, models_file, *options, threads=threads)
    try:
        yield serve
    finally:
        serve.stop()


def create_job(
    client: OpenAI,
    *,
    model: str = "tiny",
    epochs: int = 1,
    batch_size: int = 4,
    workers: int = 1,
    priority: int = 0,
    rows: bytes = PAIRS,
    validation_file: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> FineTuningJob:
    """`options` are further ones of `method.dpo`."""
    hyperparameters = {"n_epochs": epochs, "batch_size": batch_size, "beta": 0.1}
    file = client.files.create(file=("pairs.jsonl", rows), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=model,
        training_file=file.id,
        validation_file=validation_file,
        seed=seed,
        method={"type": "dpo", "dpo": {"hyperparameters": hyperparameters, **options}},
        extra_body={"resources": {"workers": workers}, "priority": priority},
    )


def wait_for_end(client: OpenAI, job: FineTuningJob) -> FineTuningJob:
    wait_until(lambda: client.fine_tuning.jobs.retrieve(job.id).finished_at is not None)
    return client.fine_tuning.jobs.retrieve(job.id)


def wait_for_step(client: OpenAI, job: FineTuningJob, step: int) -> None:
    wait_until(lambda: last_step(client, job) >= step or is_over(client, job))
    assert not is_over(client, job), f"the job was over before step {step} could be caught"


def is_over(client: OpenAI, job: FineTuningJob) -> bool:
    return client.fine_tuning.jobs.retrieve(job.id).finished_at is not None


def last_step(client: OpenAI, job: FineTuningJob) -> int:
    """Of the newest events; 0 when they have none."""
    events = client.fine_tuning.jobs.list_events(job.id).data
    steps = (cast(dict[str, Any], event.data)["step"] for event in events if event.type == "metrics")
    return next(steps, 0)


def steps_of(client: OpenAI, job: FineTuningJob) -> list[int]:
    return [metrics["step"] for metrics in metrics_of(client, job)]


def metrics_of(client: OpenAI, job: FineTuningJob) -> list[dict[str, Any]]:
    """Oldest first."""
    events = client.fine_tuning.jobs.list_events(job.id, limit=100)
    return [cast(dict[str, Any], event.data) for event in reversed(list(events)) if event.data]


def messages_of(client: OpenAI, job: FineTuningJob) -> list[str]:
    return [event.message for event in reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100)))]


def newest_checkpoint(data_dir: Path, run_id: str) -> int:
    """The step of the last one that is whole; `*` in the id stands for any of a job's runs."""
    manifests = data_dir.rglob(f"{run_id}/checkpoints/*/manifest.json")
    return max(int(path.parent.name.removeprefix("step-")) for path in manifests)


@contextmanager
def suspended(processes: list[psutil.Process]) -> Iterator[None]:
    """For as long as the context lasts they get no further; a signal finds them when it ends."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def processes_of(data_dir: Path, *, command: str = "") -> list[psutil.Process]:
    """Whatever names the data folder in its command or its environment and `command` in its command, zombies aside."""
    return [process for process in psutil.process_iter() if _names(process, str(data_dir), command)]


def _names(process: psutil.Process, text: str, command: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        arguments = process.cmdline()
        named = any(text in part for part in (*arguments, *process.environ().values()))
        return named and command in " ".join(arguments)
    except psutil.Error:
        return False


def environments_of(serve: Serve, *, command: str) -> list[dict[str, str]]:
    """Of the processes that it started, by what their command has in it."""
    environments = []
    for process in processes_of(serve.data_dir, command=command):
        with suppress(psutil.Error):  # it has just ended
            if process.pid != serve.process.pid:
                environments.append(process.environ())
    return environments


def files_that_hold(folder: Path, secrets: Iterable[str]) -> list[str]:
    """Which file has which of them in it, archives read inside."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if content.startswith(GZIP_MAGIC):
                content = gzip.decompress(content)
            found += [f"{path}: {secret}" for secret in secrets if secret.encode() in content]
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(POLL_S)
