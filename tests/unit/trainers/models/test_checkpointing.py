"""Gradient checkpointing changes memory and time, and no gradient."""

from pathlib import Path

import pytest
import torch
from transformers import OPTConfig

from tests.tiny_model import tiny_llama
from tests.tiny_runs import LORA, losses, make_run, read_events
from tests.unit.trainers.dpo.test_packed_batch import CPU, PAIRS, make_policy
from trainers.dpo import prepare
from trainers.dpo.batch import PaddedLayout
from trainers.dpo.packed_batch import PackedLayout
from trainers.entrypoint import run
from trainers.models.checkpointing import checkpoint_layers
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.lora import Policy, add_lora

OPT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "word_embed_proj_dim": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def gradients(policy: Policy, layout: str) -> tuple[list[torch.Tensor], int]:
    """Of all completions' log-probs, and the bytes that autograd kept for them."""
    policy.model.zero_grad()
    laid_out = PackedLayout(policy, CPU, longest_row=24) if layout == "packed" else PaddedLayout(policy, CPU)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with policy.with_dropout():
            log_probs, _ = laid_out.states(PAIRS).log_probs()
        kept_bytes = sum(kept.values())
    log_probs.sum().backward()
    return [p.grad for p in policy.parameters() if p.grad is not None], kept_bytes


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_gradients_are_the_same(layout: str, dropout: float) -> None:
    lora = LORA.model_copy(update={"dropout": dropout})
    policy = add_lora(tiny_llama(), lora, initial=None, reference="initial", seed=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    fuse_lora_layers(policy.model)
    plain, plain_bytes = gradients(policy, layout)
    assert checkpoint_layers(policy) == 1  # of two: not the last
    checkpointed, checkpointed_bytes = gradients(policy, layout)
    assert checkpointed_bytes < plain_bytes * 2 / 3
    for ours, theirs in zip(checkpointed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_layer_of_the_base_that_drops_out_in_training_mode_does_not() -> None:
    dropping = make_policy(OPTConfig(**OPT, dropout=0.5), targets=("q_proj", "v_proj"))
    plain, _ = gradients(dropping, "packed")
    assert checkpoint_layers(dropping) > 0
    checkpointed, _ = gradients(dropping, "packed")
    for ours, theirs in zip(checkpointed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.slow
def test_a_job_that_lacks_memory_says_so_and_learns_the_same(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("roomy", "short"):
        make_run(tmp_path / name, tiny_model)
    run(str(tmp_path / "roomy"))
    monkeypatch.setattr(prepare, "free_bytes", lambda _: 10_000)
    run(str(tmp_path / "short"))
    assert losses(tmp_path / "short") == pytest.approx(losses(tmp_path / "roomy"), rel=1e-5)
    assert "checkpointing" in [event.key for event in read_events(tmp_path / "short")]
    assert "checkpointing" not in [event.key for event in read_events(tmp_path / "roomy")]


def test_a_pass_looks_for_no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model has thousands, and each of its checkpointed layers would look at all of them."""
    policy = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=0)
    checkpoint_layers(policy)
    monkeypatch.setattr(policy.model, "modules", lambda: pytest.fail("walked over"))
    with policy.with_dropout():
        log_probs, _ = PackedLayout(policy, CPU, longest_row=24).states(PAIRS).log_probs()
    log_probs.sum().backward()


def test_a_checkpointed_reference_pass_makes_nothing_twice() -> None:
    policy = add_lora(tiny_llama(), LORA, initial=None, reference="initial", seed=0)
    checkpoint_layers(policy)
    with torch.no_grad(), policy.as_reference():
        log_probs, _ = PackedLayout(policy, CPU, longest_row=24).states(PAIRS).log_probs()
    assert not log_probs.requires_grad
