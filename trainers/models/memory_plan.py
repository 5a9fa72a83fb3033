"""What a pass's activations take, whether layers are to be computed a second time in the backward to save them, and
whether the base has to be shared out to make room for them.

An estimate for decoder layers as Llama's: within a third of what autograd keeps, for every architecture that is tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

ROOM_FOR_REST = 0.8
"""Share of the free memory that activations may have: gradients, the optimizer's moments and the head want some."""
NORM_BYTES = 4
"""transformers' norms compute in float32, whatever the model's precision."""
ALTUP_NUMBERS = 5
"""Times the hidden size: what a layer keeps of each of Gemma 3n's states, measured."""


@dataclass(frozen=True, slots=True)
class ActivationBytes:
    """A token's share of what the backward needs, and what it needs beside that."""

    layer: int
    """Inside one layer."""
    between_layers: int
    layers: int
    outside: int
    """Logits, where a layout makes them."""
    adapted: int = 0
    """Inside one layer, whatever the tokens: experts' weights, to a copy of which PEFT adds what it learns."""

    def of_pass(self, tokens: int, *, is_checkpointed: bool) -> int:
        layers_at_once = 1 if is_checkpointed else self.layers
        a_token = self.layer * layers_at_once + self.between_layers * self.layers + self.outside
        return tokens * a_token + self.adapted * layers_at_once


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    tokens_a_pass: int
    is_checkpointed: bool


def plan_memory(activations: ActivationBytes, *, longest_pair: int, most_tokens: int, free_bytes: int) -> MemoryPlan:
    """Halve the pass down to the longest pair before anything is computed twice; then start anew with that.

    Where even this does not fit, the plan is the smallest one: the estimate may be wrong.
    """
    room_bytes = int(free_bytes * ROOM_FOR_REST)
    tokens = most_tokens
    for is_checkpointed in (False, True):
        tokens = most_tokens
        while activations.of_pass(max(tokens, longest_pair), is_checkpointed=is_checkpointed) > room_bytes:
            if tokens <= longest_pair:
                break
            tokens //= 2
        else:
            return MemoryPlan(tokens, is_checkpointed)
    return MemoryPlan(tokens, is_checkpointed=True)


def fits_whole(base_bytes: int, activations: ActivationBytes, *, longest_pair: int, free_bytes: int) -> bool:
    """Whether a device has room for the whole base and the smallest plan's pass."""
    smallest = activations.of_pass(longest_pair, is_checkpointed=True)
    return base_bytes + smallest <= int(free_bytes * ROOM_FOR_REST)


def estimate_activations(
    config: PreTrainedConfig,
    *,
    dtype_bytes: int,
    is_padded: bool,
    has_gpu_kernels: bool = False,
    adapted_bytes: int = 0,
) -> ActivationBytes:
    """Estimate from a model's config, by its largest layer.

    A padded token stands for two, one in each side's row, and both have logits.
    Liger's kernels keep neither a norm's float32 numbers nor the activation between gate and product.
    `adapted_bytes`: of all layers' weights that are adapted as parameters.
    """
    text = config.get_text_config()
    numbers = max(_layer_numbers(layer, has_gpu_kernels=has_gpu_kernels) for layer in _layer_configs(text))
    layer = dtype_bytes * numbers + (0 if has_gpu_kernels else NORM_BYTES * 2 * text.hidden_size)
    logits = 3 * NORM_BYTES * text.vocab_size if is_padded else 0
    rows = 2 if is_padded else 1
    return ActivationBytes(
        rows * layer,
        rows * dtype_bytes * text.hidden_size * (_altup_states(text) or 1),
        text.num_hidden_layers,
        rows * logits,
        adapted_bytes // text.num_hidden_layers,
    )


def _layer_configs(text: PreTrainedConfig) -> Sequence[PreTrainedConfig]:
    """Return a config for each layer where they differ, as Gemma 4's do: the model's own then refuses to tell."""
    # transformers 5.17 knows no such configs.
    return text.per_layer_config if getattr(text, "is_heterogeneous", False) else [text]


def _layer_numbers(layer: PreTrainedConfig, *, has_gpu_kernels: bool) -> int:
    """Two norms' inputs and outputs; queries and attention's output; keys, values; gate, activation, up and product."""
    hidden, heads = layer.hidden_size, getattr(layer, "num_attention_heads", 1)
    head = getattr(layer, "head_dim", None) or hidden // heads
    keys = (getattr(layer, "num_key_value_heads", None) or heads) * head
    experts = getattr(layer, "num_experts_per_tok", None) or 1
    inner = (_largest(getattr(layer, "intermediate_size", None)) or 4 * hidden) * experts
    altup = ALTUP_NUMBERS * _altup_states(layer) * hidden
    numbers: int = altup + 4 * hidden + 2 * heads * head + 2 * keys + (3 if has_gpu_kernels else 4) * inner
    return numbers


def _altup_states(config: PreTrainedConfig) -> int:
    """States that Gemma 3n carries for each token, each of them predicted and corrected in every layer."""
    return getattr(config, "altup_num_inputs", 0)


def _largest(size: int | Sequence[int] | None) -> int | None:
    """Gemma 3n tells one size a layer in a config that is the same for all."""
    return max(size) if isinstance(size, Sequence) else size
