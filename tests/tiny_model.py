"""A tiny random Llama or Qwen3 with a tokenizer of its own and a ChatML template, a folder in Hugging Face's layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = ("river", "stone", "lamp", "quiet", "green", "seven", "walks", "the", "old", "bread", "sings", "north")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that has learned a few merges, so that tokens can merge across a boundary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3 + ["user assistant system"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_llama(vocabulary: int = 320) -> LlamaForCausalLM:
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SIZES)).eval()


def tiny_qwen3(vocabulary: int = 320) -> Qwen3ForCausalLM:
    """With a tied head, and heads wider than the hidden size's share."""
    torch.manual_seed(8)
    config = Qwen3Config(vocab_size=vocabulary, head_dim=16, tie_word_embeddings=True, **SIZES)
    return Qwen3ForCausalLM(config).eval()


ARCHITECTURES = {"llama": tiny_llama, "qwen3": tiny_qwen3}


def save_tiny_model(folder: Path, *, architecture: str = "llama") -> Path:
    tokenizer = tiny_tokenizer()
    ARCHITECTURES[architecture](len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
