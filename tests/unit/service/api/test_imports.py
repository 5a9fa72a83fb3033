"""The service is light: what trains stays out of its process."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

HEAVY = ("torch", "ray", "transformers", "peft", "trainers")


def test_importing_the_service_leaves_the_trainers_world_out() -> None:
    imports = "import sys, service.cli, service.serve.service_run, service.api.app"
    program = f"{imports}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
