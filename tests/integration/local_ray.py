"""One local Ray for all integration tests of a session: it takes seconds to come up."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.backends.local_ray import LocalRay


@contextmanager
def running_ray(work_dir: Path) -> Iterator[LocalRay]:
    ray = LocalRay(work_dir)
    try:
        ray.start()
        yield ray
    finally:
        ray.close()
