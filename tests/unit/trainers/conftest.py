"""One tiny model for all trainer tests, and one thread: the machine is shared."""

from pathlib import Path

import pytest
import torch

from tests.tiny_model import save_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))
