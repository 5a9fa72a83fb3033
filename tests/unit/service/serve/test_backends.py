import structlog

from service.backends.ray_http import RayError, RayHttp
from service.backends.ray_jobs import RayJobsBackend
from service.serve.backends import check_backend

TRACEBACK = "Traceback (most recent call last): … failed to connect to 10.0.0.7:6379"


class FailingHead(RayHttp):
    def get(self, path: str) -> bytes:
        raise RayError(500, TRACEBACK)


def test_strangers_hear_that_the_cluster_is_not_ready_and_the_log_why() -> None:
    backend = RayJobsBackend(FailingHead("http://10.0.0.7:8265", token=None))

    with structlog.testing.capture_logs() as lines:
        told = check_backend(backend)

    assert told == "not reachable, or still starting"
    assert [(line["event"], TRACEBACK in line["reason"]) for line in lines] == [("cluster_not_ready", True)]
