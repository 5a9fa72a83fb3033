"""`make bench-service`: the service under load, on its own PostgreSQL, beside performance.md's goals.

Everything runs on this machine: what is measured shares its cores with what measures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
from rich.console import Console
from rich.table import Table

from schemas.ids import JobId
from service.db.engine import Database
from tests.benchmarks.service_load.dispatching import seconds_to_fill_the_cluster
from tests.benchmarks.service_load.pollers import Polled
from tests.benchmarks.service_load.populate import KEY, add_first_job, clone_job
from tests.benchmarks.service_load.simulated_cluster import MODEL, NODES
from tests.benchmarks.service_load.table_size import Costs, measure_costs
from tests.benchmarks.service_load.uploading import Uploaded, measure_upload
from tests.postgres import postgres_databases

RESULTS = Path("tests/benchmarks/results/service.json")
LISTENING = "dpo-service api is listening on "
BUSY_POLLERS = 32
MANY_POLLERS = 1_000
MANY_PAUSE_S = 4.0
ROUNDS = 3
START_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    machine: str
    jobs: int
    queued: int
    projects: int
    small: Costs
    """One project with one job."""
    large: Costs
    polls_a_second: list[float]
    bare_polls_a_second: list[float]
    many_errors: int
    many_polls_a_second: float
    many_p50_s: float
    many_p99_s: float
    fill_s: dict[str, float]
    """By dispatchers."""
    upload: Uploaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="of them --queued wait, the others have ended")
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--projects", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round of polling")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as name, postgres_databases() as postgres:
        measured = _measure(Path(name), postgres.new_url(), arguments, console)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    console.print(_table(measured))


def _measure(folder: Path, url: str, arguments: argparse.Namespace, console: Console) -> Measured:
    database, objects = Database(url), folder / "objects"
    job_id = add_first_job(database, objects)
    with _api(folder, url) as (api_url, process_id):
        small = measure_costs(database, objects, api_url, job_id)
        console.print(f"cloning the job: {arguments.jobs:,} of {arguments.projects:,} projects")
        ended = arguments.jobs - arguments.queued
        clone_job(database, job_id, projects=arguments.projects, ended=ended, queued=arguments.queued)
        console.print("claims, pages, polls")
        large = measure_costs(database, objects, api_url, job_id)
        console.print("pollers")
        ours, bare = _poll_in_turns(folder, api_url, job_id, arguments.seconds)
        many = _poll(api_url, job_id, pollers=MANY_POLLERS, pause_s=MANY_PAUSE_S, seconds=3 * arguments.seconds)
        console.print("an upload")
        upload = measure_upload(api_url, process_id, folder)
    console.print("dispatchers")
    fill = {str(n): seconds_to_fill_the_cluster(database, url, objects, dispatchers=n) for n in (1, 2)}
    database.close()
    latencies = sorted(many.latencies_s)
    return Measured(
        f"{os.cpu_count()} cores",
        arguments.jobs,
        arguments.queued,
        arguments.projects,
        small,
        large,
        ours,
        bare,
        many.errors,
        len(latencies) / many.seconds,
        statistics.median(latencies),
        latencies[len(latencies) * 99 // 100],
        fill,
        upload,
    )


@contextmanager
def _api(folder: Path, url: str) -> Iterator[tuple[str, int]]:
    """A replica as users start it: its URL and its process id."""
    registry = folder / "models.toml"
    registry.write_text(f'[models.{MODEL}]\nuri = "/models/bench"\nmax_length = 512\nbase_learning_rate = 5e-5\n')
    settings = {
        "DPO_DATABASE_URL": url,
        "DPO_STORAGE_URL": str(folder / "objects"),
        "DPO_MODELS_FILE": str(registry),
        "DPO_WEBHOOK_KEY": "w" * 32,
        "DPO_PORT": "0",
    }
    output = folder / "api.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "api"], env=os.environ | settings, stdout=file, stderr=file
        )
        try:
            yield _wait_for_url(output, process), process.pid
        finally:
            process.terminate()
            process.wait()


def _wait_for_url(output: Path, process: "subprocess.Popen[bytes]") -> str:
    while LISTENING not in output.read_text():
        assert process.poll() is None, output.read_text()
        time.sleep(START_POLL_S)
    return output.read_text().split(LISTENING, 1)[1].split()[0]


def _poll_in_turns(folder: Path, api_url: str, job_id: JobId, seconds: float) -> tuple[list[float], list[float]]:
    """Polls a second of our API and of the bare endpoint, as fast as the same pollers can ask, in turns."""
    shown = folder / "job.json"
    headers = {"Authorization": f"Bearer {KEY}"}
    shown.write_text(httpx2.get(f"{api_url}/v1/fine_tuning/jobs/{job_id}", headers=headers).text)
    port = int(api_url.rsplit(":", 1)[1]) + 1
    bare = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.service_load.bare_endpoint", str(port), str(shown)]
    )
    bare_url = f"http://127.0.0.1:{port}"
    try:
        _wait_for_answer(f"{bare_url}/v1/fine_tuning/jobs/{job_id}", bare)
        rates: dict[str, list[float]] = {api_url: [], bare_url: []}
        for _ in range(ROUNDS):
            for url, measured in rates.items():
                polled = _poll(url, job_id, pollers=BUSY_POLLERS, pause_s=0.0, seconds=seconds)
                assert polled.errors == 0
                measured.append(len(polled.latencies_s) / polled.seconds)
        return rates[api_url], rates[bare_url]
    finally:
        bare.terminate()
        bare.wait()


def _wait_for_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    while True:
        assert process.poll() is None
        try:
            httpx2.get(url)
            return
        except httpx2.ConnectError:
            time.sleep(START_POLL_S)


def _poll(url: str, job_id: JobId, *, pollers: int, pause_s: float, seconds: float) -> Polled:
    port, path = url.rsplit(":", 1)[1], f"/v1/fine_tuning/jobs/{job_id}"
    options = [port, path, KEY, str(pollers), str(pause_s), str(seconds)]
    command = [sys.executable, "-m", "tests.benchmarks.service_load.pollers", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Polled(**json.loads(done.stdout))


def _table(measured: Measured) -> Table:
    title = f"{measured.jobs:,} jobs, {measured.queued:,} queued, {measured.projects:,} projects, {measured.machine}"
    rows = Table("medians", "one job", "full table", "ratio", "goal", title=title)
    for label, name in (
        ("claim of a job, ms", "claim_s"),
        ("newest page of 20 jobs, ms", "first_page_s"),
        ("oldest page of 20 jobs, ms", "last_page_s"),
        ("poll of a job, ms", "poll_s"),
    ):
        small, large = getattr(measured.small, name), getattr(measured.large, name)
        rows.add_row(label, f"{small * 1e3:.2f}", f"{large * 1e3:.2f}", f"{large / small:.2f}", "≤ 2")
    rows.add_section()
    ours, bare = statistics.median(measured.polls_a_second), statistics.median(measured.bare_polls_a_second)
    rows.add_row("polls a second; a bare endpoint's", f"{bare:.0f}", f"{ours:.0f}", f"{ours / bare:.2f}", "≥ 0.5")
    p50_ms, p99_ms = measured.many_p50_s * 1e3, measured.many_p99_s * 1e3
    many = f"{measured.many_polls_a_second:.0f}/s, p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms"
    rows.add_row(f"{MANY_POLLERS:,} pollers", "", many, f"{measured.many_errors} errors", "0")
    for dispatchers, seconds in measured.fill_s.items():
        rows.add_row(f"jobs launched a second, dispatchers: {dispatchers}", "", f"{NODES / seconds:.0f}", "", "≥ 200")
    took, copied = measured.upload.upload_s, measured.upload.copy_s
    rows.add_row("upload of 500 MiB, s; a copy", f"{copied:.1f}", f"{took:.1f}", f"{copied / took:.2f}", "≥ 0.5")
    rows.add_row("memory over idle meanwhile, MB", "", f"{measured.upload.rss_growth_bytes / 1e6:.0f}", "", "≤ 64")
    return rows


if __name__ == "__main__":
    main()
