"""What can be told of sharding without a second worker; tests/integration/test_sharded_base.py has two."""

import pytest
import torch
from torch import nn

from tests.cramped_layout import ask_a_gpu_for_too_much
from tests.tiny_model import tiny_llama
from tests.tiny_runs import LORA
from trainers.distributed import Workers
from trainers.errors import UnusableModel
from trainers.models.lora import add_lora
from trainers.models.sharded_base import ShardedBase, adapter_parameters, base_bytes, shard_base
from trainers.pass_memory import FellOutOfStep

ALONE = Workers(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_base_is_everything_but_the_adapters(use_dora: bool) -> None:
    model = tiny_llama()
    whole = sum(parameter.nbytes for parameter in model.parameters())
    lora = LORA.model_copy(update={"use_dora": use_dora})
    policy = add_lora(model, lora, initial=None, reference="sft", seed=0)
    assert base_bytes(model) == (whole, whole)
    learning, adapters = policy.parameters(), adapter_parameters(model)
    assert {id(parameter) for parameter in learning} < {id(parameter) for parameter in adapters}
    assert len(adapters) == 2 * len(learning), "the frozen reference's are adapters, too"


def test_a_model_without_layers_is_refused() -> None:
    model = tiny_llama()
    model.model.layers = nn.ModuleList()
    with pytest.raises(UnusableModel, match="no layers that can be sharded"):
        shard_base(model, ALONE)


def test_a_worker_without_memory_for_the_smallest_pass_says_so_and_other_errors_stay_themselves() -> None:
    sharded = ShardedBase(None, None, ALONE)  # type: ignore[arg-type]
    with pytest.raises(FellOutOfStep, match="no memory for the smallest pass"):
        sharded.take_part(ask_a_gpu_for_too_much)
    with pytest.raises(RuntimeError, match="shapes"):
        sharded.take_part(lambda: torch.ones(2, 3) @ torch.ones(2, 3))  # type: ignore[arg-type,return-value]
