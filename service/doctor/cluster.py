"""What runs the trainers: a cluster that answers, with its token, or what this machine has."""

import importlib.util
from collections.abc import Iterator

from service.backends.backend import BackendUnavailable
from service.backends.ray_http import RayError
from service.doctor.finding import Finding
from service.serve.backends import open_backend
from service.serve.start_errors import StartError
from service.settings import Settings

PART = "cluster"


def examine_cluster(settings: Settings) -> Iterator[Finding]:
    if settings.backend == "process":
        yield Finding(PART, "ok", "processes on this machine, for tests and laptops")
    elif settings.ray_address is None:
        yield _examine_own_ray()
    else:
        yield _examine_cluster(settings, settings.ray_address)


def _examine_own_ray() -> Finding:
    if importlib.util.find_spec("ray") is None:
        return Finding(PART, "failed", "Ray is not installed", "install dpo-service[service], or set DPO_RAY_ADDRESS")
    return Finding(PART, "ok", "a local Ray, started with `serve`")


def _examine_cluster(settings: Settings, address: str) -> Finding:
    try:
        with open_backend(settings, settings.resolved_data_dir, on_failure=lambda _: None) as opened:
            capacity = opened.backend.capacity()
    except StartError as error:  # its words are the remedy, too
        return Finding(PART, "failed", str(error))
    except BackendUnavailable as error:
        return Finding(PART, "failed", str(error), _remedy(error, settings))
    told = f"{address}: {capacity.cpus} CPUs, {capacity.gpus} GPUs"
    if settings.ray_token is None:
        remedy = "start it with RAY_AUTH_MODE=token and set DPO_RAY_TOKEN: without, who reaches it runs what he likes"
        return Finding(PART, "note", f"{told}, without a token", remedy)
    return Finding(PART, "ok", told)


def _remedy(error: BackendUnavailable, settings: Settings) -> str:
    if not isinstance(error.__cause__, RayError) or not error.__cause__.is_locked_out:
        return "check that the head runs, and that DPO_RAY_ADDRESS is its dashboard (port 8265) as seen from here"
    if settings.ray_token is None:
        return "it asks for a token: set DPO_RAY_TOKEN to its RAY_AUTH_TOKEN"
    return "it refuses the token: set DPO_RAY_TOKEN to its RAY_AUTH_TOKEN"
