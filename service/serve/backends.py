"""Open the backend that the settings ask for, and end with it what it started."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from service.backends.backend import Backend, BackendUnavailable
from service.backends.local_ray import LocalRay, LocalRayFailed
from service.backends.local_ray_backend import LocalRayBackend
from service.backends.process import ProcessBackend
from service.backends.ray_http import RayHttp
from service.backends.ray_jobs import RayJobsBackend
from service.serve.exposure import is_loopback
from service.serve.start_errors import StartError
from service.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OpenBackend:
    backend: Backend
    description: str
    close: Callable[[], None]
    """Ends the runs of a backend of our own; does nothing to a cluster that we did not start."""
    ends_runs: bool


@contextmanager
def open_backend(
    settings: Settings, data_dir: Path, *, on_failure: Callable[[LocalRayFailed], None]
) -> Iterator[OpenBackend]:
    """Yield it at once, a local Ray still starting. Raises: StartError."""
    opened = _open(settings, data_dir, on_failure=on_failure)
    try:
        yield opened
    finally:
        opened.close()


def open_shared_backend(settings: Settings) -> OpenBackend:
    """One that other dispatchers use, too: its runs outlive each of them. Raises: StartError."""
    if settings.backend == "process":
        processes = ProcessBackend(settings.resolved_data_dir / "processes")
        return OpenBackend(processes, "processes on this machine", lambda: None, ends_runs=False)
    if settings.ray_address is None:
        raise StartError(
            "DPO_RAY_ADDRESS is not set: dispatchers share one Ray cluster. Give its dashboard, such as "
            "http://head:8265; `dpo-service serve` alone starts a Ray of its own."
        )
    return _open_cluster(settings.ray_address, settings)


def check_backend(backend: Backend) -> str | None:
    """For `/readyz`: None, or that it is away. Why, the log tells: Ray's own words name inner addresses."""
    try:
        backend.capacity()
    except BackendUnavailable as error:
        log.warning("cluster_not_ready", reason=str(error))
        return "not reachable, or still starting"
    return None


def _open(settings: Settings, data_dir: Path, *, on_failure: Callable[[LocalRayFailed], None]) -> OpenBackend:
    if settings.backend == "process":
        processes = ProcessBackend(data_dir / "processes")
        return OpenBackend(processes, "processes on this machine", processes.close, ends_runs=True)
    if settings.ray_address is not None:
        return _open_cluster(settings.ray_address, settings)
    local = LocalRayBackend(LocalRay(data_dir / "ray"), on_failure=on_failure)
    local.start()
    return OpenBackend(local, "a local Ray of its own", local.close, ends_runs=True)


def _open_cluster(address: str, settings: Settings) -> OpenBackend:
    token = settings.ray_token.get_secret_value() if settings.ray_token else None
    _refuse_open_cluster(address, token)
    cluster = RayJobsBackend(RayHttp(address, token=token))
    return OpenBackend(cluster, f"the Ray cluster at {address}", lambda: None, ends_runs=False)


def _refuse_open_cluster(address: str, token: str | None) -> None:
    """A Ray without a token runs anybody's code (ShadowRay): only this machine's own loopback may be one."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise StartError(f"DPO_RAY_ADDRESS is {address!r}; give the head's dashboard, such as http://head:8265.")
    if url.username is not None:
        raise StartError("DPO_RAY_ADDRESS has a user or a password in it, which logs would show; use DPO_RAY_TOKEN.")
    if token is None and not is_loopback(url.hostname):
        raise StartError(
            f"The Ray cluster at {address} is not on this machine and DPO_RAY_TOKEN is not set: a cluster without a "
            "token runs anybody's code. Start it with RAY_AUTH_MODE=token and give the token in DPO_RAY_TOKEN."
        )
