"""The command line: `serve` for all in one; `migrate`, `api` and `dispatcher` for replicas; `doctor` for both.

An option not given is taken from its `DPO_…` variable. Each command imports its own world: --help and --version need
neither the web framework nor the database.
"""

import gc
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from service.settings import Settings

app = typer.Typer(
    help="Preference fine-tuning (DPO, LoRA) as a service, speaking OpenAI's fine-tuning API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


SECRET_SETTINGS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if "SecretStr" in str(field.annotation) or name.endswith("url")
)
"""Whose values no message shows: a URL may have a password in it."""
REMEDIES = {
    "s3_endpoint_url": "give https://host:port, without a path",
    "currency": "give three lowercase letters, as in usd",
    "webhook_key": "give 32 characters or more",
    "bootstrap_admin_key": "give 32 characters or more",
}
"""Where pydantic would tell a pattern, or count items."""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dpo-service {version('dpo-service')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    gc.disable()  # a start is mostly importing, and a fifth of that collecting garbage that is none


@app.command()
def serve(
    data_dir: Annotated[Path | None, typer.Option(help="DPO_DATA_DIR: database, objects, models. [./data]")] = None,
    host: Annotated[str | None, typer.Option(help="DPO_HOST. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="DPO_PORT; 0 takes any free one. [8000]")] = None,
    backend: Annotated[str | None, typer.Option(help="DPO_BACKEND: ray or process. [ray]")] = None,
    ray_address: Annotated[str | None, typer.Option(help="DPO_RAY_ADDRESS. [a local Ray]")] = None,
    models_file: Annotated[Path | None, typer.Option(help="DPO_MODELS_FILE. [the default model]")] = None,
) -> None:
    """Run the API, the dispatcher and a local Ray until Ctrl-C."""
    from service.serve.service_run import serve as entry

    given = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "backend": backend,
        "ray_address": ray_address,
        "models_file": models_file,
    }
    _run(entry, given)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="DPO_HOST. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="DPO_PORT; 0 takes any free one. [8000]")] = None,
) -> None:
    """Run the API alone, one of any number, until Ctrl-C."""
    from service.serve.api_run import run_api

    _run(run_api, {"host": host, "port": port})


@app.command()
def dispatcher(
    backend: Annotated[str | None, typer.Option(help="DPO_BACKEND: ray or process. [ray]")] = None,
    ray_address: Annotated[str | None, typer.Option(help="DPO_RAY_ADDRESS: the cluster that all share.")] = None,
) -> None:
    """Run a dispatcher alone, one of any number, until Ctrl-C; its runs go on without it."""
    from service.serve.dispatcher_run import run_dispatcher

    _run(run_dispatcher, {"backend": backend, "ray_address": ray_address})


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema and make the first key, before any api or dispatcher."""
    from service.serve.migrate_run import migrate as entry

    _run(entry, {})


@app.command()
def doctor() -> None:
    """Try everything that the settings name and say what to mend; the exit code is 1 when a check fails."""
    from service.doctor.examine import examine
    from service.doctor.finding import render_findings
    from service.telemetry.logs import configure_logging

    configure_logging()
    _collect_garbage_again()
    findings = examine(_load_settings({}))
    typer.echo(render_findings(findings))
    sys.exit(any(finding.state == "failed" for finding in findings))


def _run(entry: Callable[[Settings], None], given: dict[str, Path | str | int | None]) -> None:
    from service.serve.start_errors import StartError
    from service.telemetry.logs import configure_logging

    configure_logging()
    _collect_garbage_again()
    try:
        entry(_load_settings({name: value for name, value in given.items() if value is not None}))
    except StartError as error:
        typer.echo(f"dpo-service: {error}", err=True)
        sys.exit(1)


def _collect_garbage_again() -> None:
    """Once a command's world is imported: modules stay to the process's end."""
    gc.freeze()
    gc.enable()


def _load_settings(given: dict[str, Path | str | int]) -> Settings:
    try:
        return Settings.model_validate({**Settings().model_dump(), **given}) if given else Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        value = "not usable" if name in SECRET_SETTINGS else repr(first["input"])
        remedy = REMEDIES.get(name, first["msg"])
        typer.echo(f"dpo-service: DPO_{name.upper()} is {value}: {remedy}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    app()
