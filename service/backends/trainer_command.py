"""How a trainer is started: this interpreter, this checkout, whatever the working directory."""

import os
import sys
from pathlib import Path

TRAINER_MODULE = "trainers"
RAY_DRIVER_MODULE = "trainers.ray_train"
THREAD_SETTINGS = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
"""OpenMP's threads spin while they wait for each other: beside other load a step then takes several times longer."""

STORE_SETTINGS = ("DPO_S3_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Where a bucket lies. Its keys are no part of them: the cluster's processes have their own from AWS's chain."""


def store_settings() -> dict[str, str]:
    """Those of this process's that are set."""
    return {name: os.environ[name] for name in STORE_SETTINGS if name in os.environ}


def import_path() -> str:
    """Where our packages lie, first: what we start must execute this code, installed or not."""
    root = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{inherited}" if inherited else root


def local_command(run_folder_uri: str, *, workers: int) -> list[str]:
    """Several workers on one machine are torchrun's; with one, nothing stands between us and the trainer."""
    if workers == 1:
        return [sys.executable, "-P", "-m", TRAINER_MODULE, run_folder_uri]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    return [sys.executable, "-P", *launcher, "-m", TRAINER_MODULE, run_folder_uri]
