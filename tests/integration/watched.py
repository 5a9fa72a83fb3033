"""A service that is watched while it does one of each: numbers, lines and spans of the same few jobs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.exposition import Exposition, scrape
from tests.integration.serving import KEY, PAIRS, Serve, processes_of, serving, suspended, wait_for_end, wait_until
from tests.otlp_receiver import SpanReceiver, receiving_spans

METRICS = "Metrics are at "
REQUEST_ID = "req-of-the-watched-job"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
RECEIVERS_KEY = "the-receivers-own-key"
USERS_WORDS = {
    "file": "pairs-of-mine",
    "row": "a-users-own-answer",
    "metadata": "what-a-user-noted",
    "path": "typed-into-a-path",
    "query": "typed-into-a-query",
    "suffix": "name-of-mine",
}
GOOD_ROWS = PAIRS + PAIRS.replace(b"The answer is", USERS_WORDS["row"].encode())
BAD_ROW = f'{{"prompt": "{USERS_WORDS["row"]}"}}\n'.encode()


@dataclass(frozen=True, slots=True)
class Watched:
    job_id: str
    failed_id: str
    told_at_work: Exposition = field(repr=False)
    """While one job ran and another waited."""
    told: Exposition = field(repr=False)
    """After all jobs had ended."""
    output: str = field(repr=False)
    """Of the service, from its start to its end."""
    data_dir: Path
    spans: SpanReceiver = field(repr=False)

    @property
    def told_ever(self) -> Exposition:
        """Whatever there was to be told, with its last value."""
        names = self.told_at_work.samples.keys() | self.told.samples.keys()
        each = (self.told_at_work.samples, self.told.samples)
        return Exposition("", {name: each[0].get(name, {}) | each[1].get(name, {}) for name in names})

    @property
    def run_id(self) -> str:
        return f"{self.job_id}-1"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Of the log, the banner aside."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    @property
    def trainer_output(self) -> str:
        return (self.data_dir / "processes" / self.run_id / "log").read_text()

    @property
    def run_events(self) -> int:
        chunks = self.data_dir.glob(f"objects/runs/{self.job_id}/{self.run_id}/events/*")
        return sum(len(chunk.read_bytes().splitlines()) for chunk in chunks)


@contextmanager
def watched(folder: Path, models_file: Path) -> Iterator[Watched]:
    """Serve, train once, cancel once, refuse once, ask for what is not there, scrape, stop."""
    with receiving_spans() as spans, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DPO_METRICS_PORT", "0")
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.url)
        environment.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={RECEIVERS_KEY}")
        with serving(folder / "data", models_file, "--backend", "process") as serve:
            job_id, failed_id, at_work, at_rest = _use(serve)
            assert serve.stop() == 0
        yield Watched(job_id, failed_id, at_work, at_rest, serve.output, folder / "data", spans)


def _use(serve: Serve) -> tuple[str, str, Exposition, Exposition]:
    client = serve.client()
    good, bad = (
        client.files.create(file=(f"{USERS_WORDS['file']}.jsonl", content), purpose="fine-tune").id
        for content in (GOOD_ROWS, BAD_ROW)
    )
    trained = _submit(client, good)
    wait_until(lambda: bool(processes_of(serve.data_dir, command=f"{trained.id}-1")))
    with suspended(processes_of(serve.data_dir, command=f"{trained.id}-1")):  # so that it outlasts what is asked
        waiting = _submit(client, good)
        at_work = _scrape_when(serve, lambda told: _statuses(told) == ["queued", "running"])
        client.fine_tuning.jobs.cancel(waiting.id)
    refused = _submit(client, bad)
    for job in (trained, refused):
        wait_for_end(client, job)
    _ask_for_nothing(client)
    return trained.id, refused.id, at_work, _scrape_at_rest(serve)


def _submit(client: OpenAI, file_id: str) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model="tiny",
        training_file=file_id,
        suffix=USERS_WORDS["suffix"],
        metadata={"note": USERS_WORDS["metadata"]},
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "batch_size": 8}}},
        extra_headers={"x-request-id": REQUEST_ID, "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"},
    )


def _ask_for_nothing(client: OpenAI) -> None:
    url = str(client.base_url).removesuffix("/v1/")
    with httpx2.Client(timeout=30, base_url=url, headers={"authorization": f"Bearer {KEY}"}, verify=False) as http:
        assert http.get("/metrics").status_code == 404
        assert http.get(f"/{USERS_WORDS['path']}").status_code == 404
        assert http.get(f"/v1/models/{USERS_WORDS['path']}").status_code == 404
        assert http.get("/v1/files", params={"purpose": USERS_WORDS["query"]}).status_code == 400


def _scrape_at_rest(serve: Serve) -> Exposition:
    """Once the run's processes are gone and every answer is accounted for."""
    return _scrape_when(
        serve,
        lambda told: (
            told.value("dpo_run_seconds_count", outcome="succeeded") == 1
            and told.value("dpo_http_requests_total", method="GET", route="/v1/files", status="400") == 1
        ),
    )


def _scrape_when(serve: Serve, holds: Callable[[Exposition], bool]) -> Exposition:
    url = serve.output.split(METRICS, 1)[1].split()[0]
    scrapes: list[Exposition] = []

    def look() -> bool:
        scrapes.append(scrape(url))
        return holds(scrapes[-1])

    wait_until(look)
    return scrapes[-1]


def _statuses(told: Exposition) -> list[str]:
    """Of the jobs that there are, of one project."""
    return sorted(dict(labels)["status"] for labels in told.told("dpo_queue_jobs"))
