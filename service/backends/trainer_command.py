"""How a trainer is started: this interpreter, this checkout, whatever the working directory."""

import os
import sys
from pathlib import Path

TRAINER_MODULE = "trainers"
RAY_DRIVER_MODULE = "trainers.ray_train"
THREAD_SETTINGS = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
"""OpenMP's threads spin while they wait for each other: beside other load a step then takes several times longer."""


def import_path() -> str:
    """Where our packages lie, first: a run must execute this code, installed or not."""
    root = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{inherited}" if inherited else root


def local_command(run_folder_uri: str, *, workers: int) -> list[str]:
    """Several workers on one machine are torchrun's; with one, nothing stands between us and the trainer."""
    if workers == 1:
        return [sys.executable, "-P", "-m", TRAINER_MODULE, run_folder_uri]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    return [sys.executable, "-P", *launcher, "-m", TRAINER_MODULE, run_folder_uri]
