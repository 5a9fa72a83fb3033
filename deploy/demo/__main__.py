"""`make demo`: start the service on a folder of its own, tune a real model through its API, show what came of it."""

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

from openai import OpenAI
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.demo.client import JobDidNotSucceed, download_adapter, start_job, watch_job

DATA = Path(__file__).parent / "data"
FOLDER = Path(".demo").resolve()
LOG = "service.log"
MODEL = "smollm2-135m-instruct"
PROMPTS = ["What is the capital of France, and what is it known for?", "How many legs does a spider have?"]
START_TIMEOUT_S = 180


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    started = time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    try:
        with _running_service(console) as (url, key):
            adapter = _tune(console, url, key)
        _show(console, adapter)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running. `make demo` starts over.")
        return 130
    except (JobDidNotSucceed, ServiceDidNotStart) as error:
        console.print("[red]The demo failed:[/]", escape(f"{error}\nThe service's log: {FOLDER / LOG}"), soft_wrap=True)
        return 1
    console.print(f"\nDone in {time.monotonic() - started:.0f} s.")
    return 0


class ServiceDidNotStart(RuntimeError):
    """`dpo-service serve` ended or never became ready."""


@contextmanager
def _running_service(console: Console) -> Iterator[tuple[str, str]]:
    """Run `dpo-service serve` on a free port; yield its URL and an API key; leave nothing running."""
    key, port = _api_key(), _free_port()
    settings = {"DPO_DATA_DIR": str(FOLDER), "DPO_PORT": str(port), "DPO_BOOTSTRAP_KEY": key}
    with (FOLDER / LOG).open("w") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"],
            env=_environment() | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
        )
    try:
        url = f"http://127.0.0.1:{port}"
        with console.status("Starting the service (API, dispatcher, a local Ray; the model on the first start)"):
            _wait_until_ready(service, url)
        console.print(f"Service ready at {url}/v1")
        yield f"{url}/v1", key
    finally:
        _stop(service)


def _environment() -> dict[str, str]:
    """Without settings of another service: the demo is the embedded default."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DPO_")}


def _tune(console: Console, url: str, key: str) -> Path:
    client = OpenAI(base_url=url, api_key=key)
    job = start_job(client, DATA / "train.jsonl", DATA / "valid.jsonl", model=MODEL)
    console.print(f"Job {job.id}: tuning {MODEL} on {DATA / 'train.jsonl'}")
    try:
        job = watch_job(client, job, console=console)
    except KeyboardInterrupt:
        client.fine_tuning.jobs.cancel(job.id)  # or it would go on at the service's next start
        raise
    console.print(f"{job.fine_tuned_model}: trained on {job.trained_tokens:,} tokens")
    return download_adapter(client, job, into=FOLDER / "adapters")


def _show(console: Console, adapter: Path) -> None:
    with console.status("Comparing before and after with plain PEFT"):
        from deploy.demo.compare import compare  # torch and transformers: only now are they worth their import

        comparison = compare(FOLDER / "models" / MODEL, adapter, DATA / "valid.jsonl", prompts=PROMPTS)
    for answers in comparison.answers:
        console.print(f"\n[bold]{answers.prompt}[/]")
        console.print(f"  before: {answers.before}", markup=False, highlight=False)
        console.print(f"  after:  {answers.after}", markup=False, highlight=False)
    before, after, gains = comparison.before, comparison.after, comparison.gains
    table = Table(f"on {len(gains)} held-out pairs", "before", "after", title="\nPreference")
    table.add_row("chosen likelier than rejected, per token", f"{before.accuracy:.0%}", f"{after.accuracy:.0%}")
    table.add_row("log p(chosen) - log p(rejected), nats", f"{before.margin:+.2f}", f"{after.margin:+.2f}")
    table.add_row("margin gained over the reference, nats", "0", f"{mean(gains):+.2f}")
    table.add_row("pairs whose margin has grown", "", f"{mean(gain > 0 for gain in gains):.0%}")
    console.print(table)
    told = (
        f"\nAdapter: {adapter}\n"
        f"To go on: DPO_DATA_DIR={shlex.quote(str(FOLDER))} make serve\n"
        f"  then http://127.0.0.1:8000/v1 with key {_api_key()}"
    )
    console.print(told, markup=False, soft_wrap=True)  # to be copied: paths stay in one piece


def _api_key() -> str:
    """The demo's key, the same at every start: the data folder knows only its hash."""
    path = FOLDER / "key"
    path.touch(mode=0o600)
    if not path.read_text():
        path.write_text(f"sk-{secrets.token_urlsafe(32)}")
    return path.read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(service: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.poll() is not None:
            said = (FOLDER / LOG).read_text(errors="replace").strip().rpartition("\n")[2]
            raise ServiceDidNotStart(f"`dpo-service serve` ended with exit code {service.returncode}: {said}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - our own loopback URL
                return
        except OSError:  # not listening yet, or 503: not ready yet
            pass
        time.sleep(0.3)
    raise ServiceDidNotStart(f"not ready after {START_TIMEOUT_S} s")


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(timeout=30)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


if __name__ == "__main__":
    sys.exit(main())
