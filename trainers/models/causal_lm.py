"""Load a base model and its tokenizer from a folder: safetensors only, and never code that lies beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_default_handler, disable_progress_bar, enable_propagation

from schemas.fine_tuning import Precision, Quantization
from trainers.errors import QuantizationUnavailable, UnusableModel

LONGROPE = "as LongRoPE, the model's rotary embedding, would make a row's numbers depend on longer rows beside it"
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_causal_lm(
    folder: Path, *, precision: Precision, device: torch.device, quantization: Quantization | None = None
) -> PreTrainedModel:
    """Load the weights in the job's precision, in evaluation mode: dropout is the adapter's alone.

    Raises: UnusableModel, QuantizationUnavailable.
    """
    _check_folder(folder)
    # Its bar would be the last line of the run's log, where people look for errors; its own lines go to that log, too.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_default_handler()
    enable_propagation()
    placed = {} if quantization is None else _quantized(DTYPES[precision], device)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[precision],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **placed,
        )
    except (ValueError, KeyError) as reason:
        raise UnusableModel(f"the model cannot be loaded: {reason}") from reason
    model.config.use_cache = False
    loaded: PreTrainedModel = model.train(mode=False)
    if quantization is None:
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


@dataclass(frozen=True, slots=True)
class LengthLimit:
    tokens: int
    why: str


def longest_sequence(model: PreTrainedModel) -> LengthLimit | None:
    """Tokens that the model has positions for, all of one kind; None where it has no such limit."""
    text = model.config.get_text_config()
    limits = [LengthLimit(tokens, LONGROPE) for tokens in _longrope_switches(text)]
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int):
        limits.append(LengthLimit(positions, "all that the model has positions for"))
    return min(limits, key=lambda limit: limit.tokens, default=None)


def _longrope_switches(config: PreTrainedConfig) -> Iterator[int]:
    """Yield the lengths past which LongRoPE takes its frequencies for long rows, for every row of a pass."""
    rope = getattr(config, "rope_parameters", None) or {}
    of_kinds_of_layers = (each for each in rope.values() if isinstance(each, dict))
    for parameters in (rope, *of_kinds_of_layers):
        if parameters.get("rope_type") == "longrope":
            yield parameters["original_max_position_embeddings"]


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _quantized(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Load to the device in 4-bit NormalFloat, scales quantised too (arXiv:2305.14314); compute in the job's precision.

    Raises: QuantizationUnavailable.
    """
    if device.type != "cuda":
        raise QuantizationUnavailable("4-bit weights need a GPU and this run has none; leave quantization out")
    try:
        import bitsandbytes  # noqa: F401  # transformers reaches it by name, and words its absence for programmers
    except ImportError as reason:
        raise QuantizationUnavailable(
            "4-bit weights need bitsandbytes, which the trainer's machine has not; install dpo-service[gpu] there, "
            "or leave quantization out"
        ) from reason
    settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


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
