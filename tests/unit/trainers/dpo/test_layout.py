"""The layout is chosen by comparison: what packing cannot serve is served padded, and says why."""

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, MambaConfig, MistralConfig, PretrainedConfig

from tests.unit.trainers.dpo.test_packed_batch import CPU, PAIRS, SIZES, make_policy
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.layout import choose_layout
from trainers.dpo.packed_batch import PackedLayout


def test_a_llama_is_packed() -> None:
    chosen = choose_layout(make_policy(LlamaConfig(**SIZES)), PAIRS, device=CPU, pad_token_id=0)
    assert chosen.why_padded is None
    assert isinstance(chosen.layout, PackedLayout)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        pytest.param(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2), "", id="mamba"),
        pytest.param(Gemma2Config(**SIZES), "soft caps", id="gemma2"),
        pytest.param(MistralConfig(**SIZES, sliding_window=8), "window of 8", id="short window"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Mamba's, of missing CUDA kernels
def test_what_packing_cannot_serve_is_padded_and_says_why(config: PretrainedConfig, why: str) -> None:
    # PEFT refuses Mamba's out_proj, which "all-linear" would name.
    policy = make_policy(config, targets=("in_proj", "x_proj") if config.model_type == "mamba" else "all-linear")
    chosen = choose_layout(policy, PAIRS, device=CPU, pad_token_id=0)
    assert isinstance(chosen.layout, PaddedLayout)
    assert chosen.why_padded
    assert why in chosen.why_padded
    with torch.no_grad():
        assert chosen.layout.states(PAIRS).log_probs()[0].isfinite().all()
