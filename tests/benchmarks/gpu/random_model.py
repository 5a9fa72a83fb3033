"""Llamas of a real one's shape with random weights: a trainer's speed and memory do not depend on what they say.

`python -m tests.benchmarks.gpu.random_model SHAPE TOKENIZER_FOLDER FOLDER` writes one in bfloat16.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 49152,
    },
}
"""Llama 3's 8B, and one to try the benchmark with."""


def write_random_model(shape: str, tokenizer_folder: Path, folder: Path) -> None:
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=131072, rope_theta=500000.0)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4GB")
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(folder)


if __name__ == "__main__":
    write_random_model(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
