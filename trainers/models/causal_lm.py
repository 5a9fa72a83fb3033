"""Load a base model and its tokenizer from a folder: safetensors only, and never code that lies beside them."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from schemas.fine_tuning import Precision
from trainers.errors import UnusableModel

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_causal_lm(folder: Path, *, precision: Precision, device: torch.device) -> PreTrainedModel:
    """Load the weights in the job's precision, in evaluation mode: dropout is the adapter's alone.

    Raises: UnusableModel.
    """
    _check_folder(folder)
    # Its bar would be the last line of the run's log, where people look for errors.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[precision],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (ValueError, KeyError) as reason:
        raise UnusableModel(f"the model cannot be loaded: {reason}") from reason
    model.config.use_cache = False
    loaded: PreTrainedModel = model.train(mode=False)
    torch.nn.Module.to(loaded, device)
    return loaded


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Raises: UnusableModel."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as reason:
        raise UnusableModel(f"the model's tokenizer cannot be loaded: {reason}") from reason
    if tokenizer.eos_token is None:
        raise UnusableModel(
            "the model's tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Tokens that the model has positions for; None where it has no such limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise UnusableModel("the model's folder has no config.json; correct the model's place in the registry")
    if "auto_map" in json.loads(config.read_bytes()):
        raise UnusableModel("the model needs code of its own (auto_map), which is never run; use another model")
    if not weight_files(folder):
        raise UnusableModel(
            "the model's folder has no safetensors weights; convert the model, other formats are not loaded"
        )
