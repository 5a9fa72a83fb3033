"""Modules that measure in a process of their own, and print."""

import subprocess
import sys


def run_module(module: str, *options: str) -> str:
    """Return what it printed. Raises: CalledProcessError."""
    command = [sys.executable, "-m", module, *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
