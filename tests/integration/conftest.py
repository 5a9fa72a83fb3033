from collections.abc import Iterator
from pathlib import Path

import pytest

from service.backends.local_ray import LocalRay
from tests.integration.local_ray import running_ray
from tests.integration.watched import Watched, watched


@pytest.fixture(scope="module")  # idle, one takes a tenth of a core from all that follows
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    with running_ray(tmp_path_factory.mktemp("ray")) as ray:
        yield ray


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, models_file: Path) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("watched"), models_file) as done:
        yield done


@pytest.fixture(scope="session")
def models_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of one tiny model."""
    from tests.tiny_model import save_tiny_model  # torch is for those who need a model, not for all who collect

    folder = tmp_path_factory.mktemp("models")
    save_tiny_model(folder / "tiny")
    registry = folder / "models.toml"
    registry.write_text(
        f'[models.tiny]\nuri = "{folder / "tiny"}"\nmax_length = 512\nbase_learning_rate = 1e-3\n'
        'precision = "fp32"\ngpus = 0\n'
    )
    return registry
