"""`python -m trainers` as a process: asked to stop, or killed, it loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from schemas.run_layout import OUTCOME
from schemas.run_record import Outcome
from tests.tiny_model import save_tiny_model
from tests.tiny_runs import DPO, losses, make_run, read_events
from trainers.entrypoint import run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LONG = DPO.model_copy(update={"n_epochs": 40, "learning_rate": 1e-4})
"""120 steps, some seconds."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainers", str(folder)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_another_checkpoint(folder: Path, process: subprocess.Popen[bytes]) -> None:
    before = checkpoints(folder)
    while checkpoints(folder) <= before:
        assert process.poll() is None
        time.sleep(0.05)


def checkpoints(folder: Path) -> set[Path]:
    return set(folder.glob("checkpoints/*/manifest.json"))


def test_a_run_that_was_ended_and_then_killed_goes_on_to_the_unbroken_ones_losses(tmp_path: Path, model: Path) -> None:
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    make_run(broken, model, dpo=LONG, checkpoint_every_steps=10)
    make_run(unbroken, model, dpo=LONG)
    torch.set_num_threads(1)
    run(str(unbroken))
    for sent, exit_code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(broken)
        wait_for_another_checkpoint(broken, process)
        process.send_signal(sent)
        assert process.wait(timeout=120) == exit_code
        assert not (broken / OUTCOME).exists()
    assert start(broken).wait(timeout=120) == 0
    assert Outcome.model_validate_json((broken / OUTCOME).read_bytes()).steps == 120
    assert losses(broken) == losses(unbroken)
    assert sum(event.key.startswith("resumed:") for event in read_events(broken)) == 2


def run_by_hand(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainers", str(folder)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)


def test_a_folder_without_a_spec_is_told_in_one_line(tmp_path: Path) -> None:
    done = run_by_hand(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nothing lies at {tmp_path}/spec.json: ")
    assert done.stderr.count("\n") == 1


def test_a_failed_run_exits_with_0_and_its_last_line_tells_where_to_read_why_each_time(tmp_path: Path) -> None:
    make_run(tmp_path / "run", tmp_path / "nowhere")
    for event in ("run_finished", "run_had_finished"):
        done = run_by_hand(tmp_path / "run")
        assert done.returncode == 0
        told = json.loads(done.stdout.splitlines()[-1])
        assert (told["event"], told["level"], told["outcome"]) == (event, "error", "failed")
        assert (told["code"], told["param"]) == ("model_not_usable", "model")
        assert told["message"] == "see outcome.json"
    outcome = Outcome.model_validate_json((tmp_path / "run" / OUTCOME).read_bytes())
    assert outcome.error is not None
    assert outcome.error.message.startswith(f"nothing lies at {tmp_path / 'nowhere'}; mend its uri")
