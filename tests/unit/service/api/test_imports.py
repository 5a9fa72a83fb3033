"""The API is light: what trains stays out of its process."""

import subprocess
import sys

HEAVY = ("torch", "ray", "transformers", "peft", "trainers")


def test_importing_the_api_leaves_the_trainers_world_out() -> None:
    program = f"import sys, service.api.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
