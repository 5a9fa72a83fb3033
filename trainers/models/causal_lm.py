"""Load a base model and its tokenizer from a folder: safetensors only, and never code that lies beside them."""

import errno
import json
import string
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
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
from trainers.errors import MORE_ROOM, QuantizationUnavailable, UnusableModel
from trainers.pass_memory import is_out_of_memory

THE_MODELS_FAULT = (None, errno.ENOENT)
"""Numbers of such an OSError: transformers' own have none; all others are the disk's or the network's."""
LONGROPE = "as LongRoPE, the model's rotary embedding, would make a row's numbers depend on longer rows beside it"
CHARACTERS = " ".join(string.ascii_letters + string.digits)
"""Any tokenizer of texts knows some of these, even one of proteins."""
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
        # A pair, because it is asked what it has found: the type knows the model alone.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[precision],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # and named by us
            output_loading_info=True,
            **placed,
        )
    except (ValueError, KeyError, SafetensorError, OSError, RuntimeError) as reason:
        if not _is_the_models_fault(reason):
            raise
        raise UnusableModel(f"the model cannot be loaded: {reason}{_remedy(reason)}") from reason
    except ImportError as reason:
        raise UnusableModel(
            f"the model needs what this trainer lacks: {reason}; where it is stored quantised, register the "
            "unquantised model"
        ) from reason
    model: PreTrainedModel = loaded[0]
    _check_weights(loaded[1]["missing_keys"], loaded[1]["mismatched_keys"])
    model.config.use_cache = False
    model.train(mode=False)
    if quantization is None:
        torch.nn.Module.to(model, device)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Raises: UnusableModel."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as reason:
        if not _is_the_models_fault(reason):
            raise
        raise UnusableModel(f"the model's tokenizer cannot be loaded: {reason}") from reason
    if tokenizer.eos_token is None:
        raise UnusableModel(
            "the model's tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json"
        )
    loaded: PreTrainedTokenizerBase = tokenizer
    _check_vocabulary(loaded)
    return loaded


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    """Where the file of the vocabulary is missing, transformers makes one of special tokens alone.

    Raises: UnusableModel.
    """
    if not str(tokenizer.decode(tokenizer(CHARACTERS)["input_ids"], skip_special_tokens=True)).strip():
        raise UnusableModel(
            "the model's tokenizer knows no letter and no digit: its files are incomplete (tokenizer.json, or the "
            "vocabulary); copy it anew"
        )


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


def vocabulary_size(model: PreTrainedModel) -> int:
    """Ids below this have an embedding and a logit."""
    tables: tuple[Any, ...] = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]
    return min(len(table.weight) for table in tables if table is not None)


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
    try:
        settings = json.loads(config.read_bytes())
    except ValueError as reason:
        raise UnusableModel(f"the model's config.json is not JSON ({reason}); copy the model anew") from reason
    if "auto_map" in settings:
        raise UnusableModel("the model needs code of its own (auto_map), which is never run; use another model")
    if not weight_files(folder):
        raise UnusableModel(
            "the model's folder has no safetensors weights; convert the model, other formats are not loaded"
        )


def _is_the_models_fault(reason: Exception) -> bool:
    """Otherwise another attempt, or a smaller model, may cure it."""
    if isinstance(reason, OSError):
        return reason.errno in THE_MODELS_FAULT
    return not isinstance(reason, torch.AcceleratorError) and not is_out_of_memory(reason)


def _remedy(reason: Exception) -> str:
    match reason:
        case OSError() | SafetensorError():
            return "; its files are incomplete or damaged, copy it anew"
        case RuntimeError():
            # Of a weight that cannot be converted transformers keeps the reason to its log, lack of memory too.
            return f"; the run's log names the weights. Copy the model anew, or, where memory was missing, {MORE_ROOM}"
        case _:
            return ""


def _check_weights(missing: Set[str], mismatched: Set[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """What the files lack transformers makes up at random, and says so in the log alone. Tied weights are not missing.

    Raises: UnusableModel.
    """
    if mismatched:
        name, stored, configured = min(mismatched)
        raise UnusableModel(
            f"the model's weight {name} has the shape {list(stored)} in its files and {list(configured)} by its "
            "config.json, which do not belong together; copy the model anew"
        )
    if missing:
        raise UnusableModel(
            f"the model's files lack {len(missing)} of its weights, such as {min(missing)}: it is damaged, or no "
            "causal language model (but an encoder, or a reward model); copy it anew, or take another model"
        )
