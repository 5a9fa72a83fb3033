"""The reference cache through whole runs: filled once, never trusted, and no number depends on when a run ends."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.run_layout import ADAPTER, CHECKPOINTS, OUTCOME
from tests.tiny_runs import DPO, LORA, losses, make_run, preference_rows, read_events, write_preferences
from tests.unit.trainers.test_entrypoint import adapter_of, at_step, lose_the_node, send_sigterm
from trainers.dpo import shared_reference, step
from trainers.dpo.reference_cache import ReferenceEntry
from trainers.entrypoint import run
from trainers.errors import RunStopped
from trainers.run_folder import RunFolder

pytestmark = pytest.mark.slow

FROM_CACHE = "Reference log-probs: 10 pairs from the cache"
KEPT = "Reference log-probs: 10 pairs computed during the first epoch and cached"


class Computed:
    """Counts the passes that compute the reference."""

    passes = 0


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Computed:
    count = Computed()
    honest = step.reference_log_probs

    def counting(*arguments: Any) -> torch.Tensor:
        count.passes += 1
        return honest(*arguments)

    monkeypatch.setattr(step, "reference_log_probs", counting)
    return count


def messages(folder: Path, *, level: str = "info") -> list[str]:
    return [event.message for event in read_events(folder) if event.level == level]


def trained(folder: Path, model: Path, **changes: Any) -> Path:
    """A run with a cache beside its folder, made to its end."""
    make_run(folder, model, **{"reference_cache": str(folder.parent / "cache"), **changes})
    outcome = run(str(folder))
    assert outcome is not None
    assert outcome.error is None, outcome.error
    return folder


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER / "adapter_model.safetensors")


def rewrite(entry: Path, table: torch.Tensor) -> None:
    """Write other numbers under an entry's name, with the hash that makes them look whole."""
    ReferenceEntry(RunFolder(str(entry.parent)), entry.name, entry.stem, len(table)).write(table)


def test_a_second_job_on_the_same_data_computes_no_reference(
    tmp_path: Path, tiny_model: Path, computed: Computed
) -> None:
    first = trained(tmp_path / "first", tiny_model)
    assert KEPT in messages(first)
    assert computed.passes > 0
    computed.passes = 0
    second = trained(tmp_path / "second", tiny_model, job_id="ftjob-other")
    assert computed.passes == 0
    assert messages(second)[1] == FROM_CACHE
    assert losses(second) == losses(first)
    assert all(torch.equal(weights(first)[name], tensor) for name, tensor in weights(second).items())


def test_other_hyperparameters_share_an_entry_and_other_numbers_do_not(
    tmp_path: Path, tiny_model: Path, computed: Computed
) -> None:
    first = trained(tmp_path / "first", tiny_model)
    computed.passes = 0
    swept = DPO.model_copy(update={"beta": 0.5, "learning_rate": 1e-3, "batch_size": 5, "loss_type": "ipo"})
    trained(tmp_path / "swept", tiny_model, dpo=swept, lora=LORA.model_copy(update={"r": 8}), seed=9)
    assert computed.passes == 0
    assert len(entries(tmp_path)) == 1
    trained(tmp_path / "half", tiny_model, precision="bf16")
    trained(tmp_path / "length", tiny_model, dpo=DPO.model_copy(update={"ld_alpha": 0.5}))
    trained(tmp_path / "tuned", tiny_model, initial_adapter=adapter_of(first))
    rows = write_preferences(tmp_path / "fewer.jsonl", preference_rows(9))
    trained(tmp_path / "fewer", tiny_model, training_file=rows.model_copy(update={"uri": str(tmp_path / rows.uri)}))
    assert len(entries(tmp_path)) == 5
    computed.passes = 0
    again = trained(tmp_path / "again", tiny_model, dpo=DPO.model_copy(update={"ld_alpha": 0.5}), seed=9)
    assert (computed.passes, messages(again, level="warn")) == (0, [])


def test_a_base_model_whose_weights_changed_has_another_entry(
    tmp_path: Path, tiny_model: Path, computed: Computed
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    trained(tmp_path / "before", model)
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] *= 1.5
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    computed.passes = 0
    after = trained(tmp_path / "after", model)
    assert computed.passes > 0
    assert KEPT in messages(after)
    assert messages(after, level="warn") == []
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "empty", "foreign shape", "not a number"])
def test_a_damaged_entry_is_told_and_filled_again(
    tmp_path: Path, tiny_model: Path, computed: Computed, damage: str
) -> None:
    first = trained(tmp_path / "first", tiny_model)
    [entry] = entries(tmp_path)
    whole = entry.read_bytes()
    match damage:
        case "flipped bit":
            entry.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        case "truncated":
            entry.write_bytes(whole[:-3])
        case "empty":
            entry.write_bytes(b"")
        case "foreign shape":
            rewrite(entry, torch.full((4, 2), -1.0))
        case _:
            rewrite(entry, torch.full((10, 2), torch.nan))
    computed.passes = 0
    second = trained(tmp_path / "second", tiny_model)
    assert computed.passes > 0
    [warning] = messages(second, level="warn")
    assert warning.startswith("The cached reference log-probs are damaged (")
    assert KEPT in messages(second)
    assert losses(second) == losses(first)
    assert entry.read_bytes() == whole


def test_a_cached_reference_that_breaks_the_contract_is_thrown_away(
    tmp_path: Path, tiny_model: Path, computed: Computed
) -> None:
    first = trained(tmp_path / "first", tiny_model)
    [entry] = entries(tmp_path)
    whole = entry.read_bytes()
    rewrite(entry, load_file(entry)["log_probs"] * torch.tensor([1.01, 1.0]))
    second = trained(tmp_path / "second", tiny_model)
    [warning] = messages(second, level="warn")
    assert warning == "The cached reference log-probs are not this reference's; they are computed anew"
    assert losses(second) == losses(first)
    assert entry.read_bytes() == whole


def test_a_policy_that_starts_elsewhere_does_not_trust_the_cache_either(tmp_path: Path, tiny_model: Path) -> None:
    """There the first step has a margin of its own, so the contract could not see it."""
    initial = adapter_of(trained(tmp_path / "initial", tiny_model, reference_cache=None))
    first = trained(tmp_path / "first", tiny_model, initial_adapter=initial, reference="base")
    [entry] = entries(tmp_path)
    rewrite(entry, load_file(entry)["log_probs"] * 1.01)
    second = trained(tmp_path / "second", tiny_model, initial_adapter=initial, reference="base")
    assert len(messages(second, level="warn")) == 1
    assert losses(second) == losses(first)
    third = trained(tmp_path / "third", tiny_model, initial_adapter=initial, reference="base")
    assert FROM_CACHE in messages(third)
    assert losses(third) == losses(first)


def test_a_computed_reference_that_breaks_the_contract_still_fails_the_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "first", tiny_model)
    [entry] = entries(tmp_path)
    rewrite(entry, load_file(entry)["log_probs"] * 1.01)
    honest = step.reference_log_probs
    monkeypatch.setattr(step, "reference_log_probs", lambda *arguments: honest(*arguments) * 1.02)
    make_run(tmp_path / "second", tiny_model, reference_cache=str(tmp_path / "cache"))
    outcome = run(str(tmp_path / "second"))
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.code == "reference_contract_broken"
    assert entries(tmp_path) == []


def test_a_cache_that_cannot_be_read_or_written_costs_no_job(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    folder = trained(tmp_path / "first", tiny_model)
    assert [text.split(" (")[0] for text in messages(folder, level="warn")] == [
        "The reference cache cannot be read",
        "The reference log-probs could not be cached",
    ]


@pytest.mark.parametrize("stopped_after", [1, 2, 4], ids=["first step", "first epoch", "second epoch"])
@pytest.mark.parametrize("is_filled", [False, True], ids=["empty cache", "filled cache"])
def test_stopping_and_resuming_changes_no_number(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int, is_filled: bool
) -> None:
    cache = str(tmp_path / "cache")
    if is_filled:
        trained(tmp_path / "filling", tiny_model, dpo=DPO.model_copy(update={"batch_size": 3}))
    unbroken = trained(tmp_path / "unbroken", tiny_model, reference_cache=cache)
    if not is_filled:
        shutil.rmtree(cache)
    make_run(tmp_path / "killed", tiny_model, reference_cache=cache)
    with monkeypatch.context() as patched:
        at_step(stopped_after, send_sigterm, patched)
        with pytest.raises(RunStopped):
            run(str(tmp_path / "killed"))
    resumed = trained(tmp_path / "resumed", tiny_model, resume_from=(str(tmp_path / "killed"),))
    assert losses(tmp_path / "killed") | losses(resumed) == losses(unbroken)
    assert all(torch.equal(weights(unbroken)[name], tensor) for name, tensor in weights(resumed).items())
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("meanwhile", ["filled", "emptied"])
def test_a_resumed_run_begins_with_the_table_it_began_with_whatever_the_cache_has_by_then(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Killed before its first checkpoint; another job's numbers may differ in their last digits, here by more."""
    cache = tmp_path / "cache"
    other = trained(tmp_path / "other", tiny_model)
    [entry] = entries(tmp_path)
    nudged = load_file(entry)["log_probs"] * (1 + 2e-6)
    if meanwhile == "filled":
        unbroken = other
        shutil.rmtree(cache)
    else:
        rewrite(entry, nudged)
        unbroken = trained(tmp_path / "unbroken", tiny_model)
        assert losses(unbroken) != losses(other)
    make_run(tmp_path / "killed", tiny_model, reference_cache=str(cache))
    with monkeypatch.context() as patched:
        at_step(2, lose_the_node, patched)
        with pytest.raises(OSError, match="went away"):
            run(str(tmp_path / "killed"))
    assert not (tmp_path / "killed" / CHECKPOINTS).exists()
    assert not (tmp_path / "killed" / OUTCOME).exists()
    if meanwhile == "filled":
        cache.mkdir()
        rewrite(entry, nudged)
    else:
        shutil.rmtree(cache)
    resumed = trained(tmp_path / "resumed", tiny_model, resume_from=(str(tmp_path / "killed"),))
    assert losses(resumed) == losses(unbroken)


def test_a_run_killed_between_its_last_pass_and_the_cache_fills_it_when_it_goes_on(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    make_run(tmp_path / "run", tiny_model, reference_cache=str(tmp_path / "cache"), checkpoint_every_steps=1)
    with monkeypatch.context() as patched:
        patched.setattr(shared_reference.SharedReference, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(str(tmp_path / "run"))
    run(str(tmp_path / "run"))
    assert len(entries(tmp_path)) == 1
    assert FROM_CACHE in messages(trained(tmp_path / "next", tiny_model))
