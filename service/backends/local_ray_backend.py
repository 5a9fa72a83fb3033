"""The backend over a local Ray: it comes up beside the API, and comes up again when it dies.

Until it is up, and while it is away, every call raises BackendUnavailable, and the dispatcher waits.
"""

import threading
import time
from collections.abc import Callable

import structlog

from schemas.ids import RunId
from service.backends.backend import BackendUnavailable, Capacity, RunRequest, RunStatus
from service.backends.local_ray import LocalRay, LocalRayFailed
from service.backends.ray_jobs import RayJobsBackend

log = structlog.get_logger()

WATCH_S = 0.5

OnFailure = Callable[[LocalRayFailed], None]


class LocalRayBackend:
    def __init__(self, ray: LocalRay, *, on_failure: OnFailure) -> None:
        self._ray = ray
        self._on_failure = on_failure
        self._jobs: RayJobsBackend | None = None
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="local-ray", daemon=True)

    def start(self) -> None:
        """Return at once; the cluster comes up meanwhile."""
        self._supervisor.start()

    def close(self) -> None:
        self._closing.set()
        self._jobs = None
        self._ray.close()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def submit(self, request: RunRequest) -> None:
        self._running().submit(request)

    def status(self, run_id: RunId) -> RunStatus:
        return self._running().status(run_id)

    def stop(self, run_id: RunId) -> None:
        self._running().stop(run_id)

    def log_tail(self, run_id: RunId) -> str:
        return self._running().log_tail(run_id)

    def capacity(self) -> Capacity:
        return self._running().capacity()

    def _running(self) -> RayJobsBackend:
        jobs = self._jobs  # once: the supervisor may set it meanwhile
        if jobs is None:
            raise BackendUnavailable("the local Ray is starting")
        return jobs

    def _give_up(self, error: LocalRayFailed) -> None:
        if not self._closing.is_set():
            self._on_failure(error)

    def _supervise(self) -> None:
        """The top of the supervisor's thread."""
        try:
            self._keep_up()
        except LocalRayFailed as error:
            self._give_up(error)
        except Exception as error:  # a full disk, no process to be had, or a bug
            log.exception("local_ray_not_supervised")
            self._give_up(LocalRayFailed(f"the local Ray could not be kept up ({type(error).__name__}: {error})"))

    def _keep_up(self) -> None:
        """Start it again whenever it has died. Raises: LocalRayFailed."""
        while not self._closing.is_set():
            started_at = time.monotonic()
            self._jobs = self._ray.start(stopping=self._closing)
            log.info("local_ray_ready", seconds=round(time.monotonic() - started_at, 1))
            while self._ray.is_alive() and not self._closing.wait(WATCH_S):
                pass
            self._jobs = None
            if not self._closing.is_set():
                log.warning("local_ray_died")
        self._ray.close()
