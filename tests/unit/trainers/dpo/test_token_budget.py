"""Out of memory: smaller passes, the same numbers, and a word about it; a pair that is too long alone ends the job."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cramped_layout import ask_a_gpu_for_too_much, ask_the_host_for_too_much, cramped
from tests.tiny_runs import DPO, losses, make_run, preference_rows, read_events, write_preferences
from tests.unit.trainers.dpo.test_plan import LENGTHS, pairs_of
from tests.unit.trainers.test_entrypoint import at_step, send_sigterm
from trainers.distributed import Workers
from trainers.dpo.packed_batch import PackedLayout
from trainers.dpo.plan import micro_batches, shard
from trainers.dpo.token_budget import TokenBudget, lower_budget
from trainers.entrypoint import run
from trainers.errors import RunStopped
from trainers.events import EventLog
from trainers.run_folder import RunFolder

ALONE = Workers(0, 1, torch.device("cpu"))
ROOM = 40
"""Tokens: more than the longest of the runs' pairs has, less than two of them have."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("allocate", "loss_type"),
    [
        pytest.param(ask_a_gpu_for_too_much, "sigmoid", id="gpu"),
        pytest.param(ask_the_host_for_too_much, "sigmoid", id="host"),
        pytest.param(ask_the_host_for_too_much, "aot", id="host, in the second of two phases"),
    ],
)
def test_a_step_that_runs_out_of_memory_is_made_again_in_smaller_passes(
    allocate: Callable[[], None], loss_type: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("roomy", "cramped"):
        folder = tmp_path / name
        folder.mkdir()
        validation = write_preferences(folder / "validation.jsonl", preference_rows(3, first=30))
        dpo = DPO.model_copy(update={"loss_type": loss_type})
        make_run(folder, tiny_model, validation_file=validation, dpo=dpo)
    run(str(tmp_path / "roomy"))
    monkeypatch.setattr(PackedLayout, "states", cramped(ROOM, allocate=allocate))
    run(str(tmp_path / "cramped"))
    assert losses(tmp_path / "cramped") == pytest.approx(losses(tmp_path / "roomy"), rel=1e-5)
    warnings = [event.message for event in read_events(tmp_path / "cramped") if event.level == "warn"]
    assert warnings == [
        "Out of memory at step 1: passes have at most 64 tokens from now on, not 1,024; results stay the same",
        "Out of memory at step 1: passes have at most 32 tokens from now on, not 64; results stay the same",
    ]


@pytest.mark.slow
def test_a_resumed_run_begins_with_the_budget_of_its_checkpoint_and_may_go_lower(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "first", tiny_model)
    monkeypatch.setattr(PackedLayout, "states", cramped(70, allocate=ask_a_gpu_for_too_much))
    with monkeypatch.context() as patched:
        at_step(2, send_sigterm, patched)  # the first step's second try
        with pytest.raises(RunStopped, match="after step 1"):
            run(str(tmp_path / "first"))
    make_run(tmp_path / "second", tiny_model, resume_from=(str(tmp_path / "first"),))
    monkeypatch.setattr(PackedLayout, "states", cramped(ROOM, allocate=ask_a_gpu_for_too_much))
    outcome = run(str(tmp_path / "second"))
    assert outcome is not None
    assert outcome.status == "succeeded"
    warnings = [event.message for event in read_events(tmp_path / "second") if event.level == "warn"]
    assert warnings == [
        "Out of memory at step 2: passes have at most 32 tokens from now on, not 64; results stay the same"
    ]


def test_a_checkpoint_of_an_earlier_version_leaves_the_budget_to_the_attempt(tmp_path: Path) -> None:
    budget = TokenBudget(512, ALONE, EventLog(RunFolder(str(tmp_path)), is_writer=True), pads=False)
    budget.restore({})
    assert budget.tokens == 512


def test_a_pair_that_does_not_fit_alone_ends_the_job_with_what_to_lower(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", tiny_model)
    monkeypatch.setattr(PackedLayout, "states", cramped(25, allocate=ask_a_gpu_for_too_much))
    outcome = run(str(tmp_path / "run"))
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.code == "not_enough_memory"
    assert "at step 1" in outcome.error.message
    assert outcome.error.param == "method.dpo.hyperparameters.max_length"
    for remedy in ("Lower max_length", 'precision to "bf16"', 'quantization to "nf4"', "resources.gpus", "sharding"):
        assert remedy in outcome.error.message


@settings(deadline=None)
@given(lengths=LENGTHS, token_budget=st.integers(1, 2_000), world_size=st.integers(1, 4), pads=st.booleans())
def test_a_lower_budget_cuts_further_or_there_is_none(
    lengths: list[int], token_budget: int, world_size: int, pads: bool
) -> None:
    pairs = pairs_of(lengths)
    shards = [shard(range(len(pairs)), pairs, rank=rank, world_size=world_size) for rank in range(world_size)]

    def passes(budget: int) -> list[list[int]]:
        return [part for mine in shards for part in micro_batches(mine, pairs, token_budget=budget, pads=pads)]

    lower = lower_budget(shards, pairs, token_budget=token_budget, pads=pads)
    if lower is None:
        assert len(passes(token_budget)) == len(pairs)
    else:
        assert lower < token_budget
        assert passes(lower) != passes(token_budget)  # some pass is smaller; there may be as many
