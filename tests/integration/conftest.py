from collections.abc import Iterator

import pytest

from service.backends.local_ray import LocalRay
from tests.integration.local_ray import running_ray


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    with running_ray(tmp_path_factory.mktemp("ray")) as ray:
        yield ray
