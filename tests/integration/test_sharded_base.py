"""Two workers with half of the base each train as one with the whole of it does."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from schemas.run_layout import ADAPTER, OUTCOME
from schemas.run_record import Outcome
from schemas.run_spec import GuardParameters, SftParameters
from tests.integration.test_two_workers import run_on_two, without_time
from tests.tiny_model import SIZES, save_tiny_model, tiny_tokenizer
from tests.tiny_runs import DPO, LORA, losses, make_run, preference_rows, read_events, write_preferences
from tests.two_worker_runs import Place, Planned, write_plan
from trainers.entrypoint import run


@dataclass(frozen=True, slots=True)
class Case:
    """A run as one worker makes it and as two with a sharded base do."""

    changes: dict[str, Any] = field(default_factory=dict)
    model: str = "llama"
    cramped_at: Place | None = None
    free_bytes: int | None = None
    warned: int = 0
    """How often passes are made smaller."""


def dpo(**changes: Any) -> dict[str, Any]:
    return {"dpo": DPO.model_copy(update=changes)}


def lora(**changes: Any) -> dict[str, Any]:
    return {"lora": LORA.model_copy(update=changes)}


SFT = {"reference": "sft", "sft": SftParameters(n_epochs=2, learning_rate=5e-3)}
ONCE, UNASKED = dpo(n_epochs=1), "by itself, and checkpointed"
CASES = {
    "sigmoid": Case(),
    "a coupled loss, a tied head": Case(dpo(loss_type={"aot": 1.0, "sft": 0.5}), model="qwen3"),
    "an estimated reference": Case(SFT),
    "DoRA, padded rows": Case(ONCE | SFT | lora(use_dora=True), model="gemma2"),
    "only the last layer learns": Case(ONCE | lora(target_modules=("layers.1.mlp.up_proj",))),
    "no memory before a pass": Case(ONCE, cramped_at="before the pass", warned=1),
    "no memory inside a forward": Case(ONCE, cramped_at="inside its forward", warned=1),
    "no memory inside a backward": Case(dpo(n_epochs=1, loss_type="aot"), cramped_at="inside its backward", warned=1),
    "no memory, an estimated reference": Case(ONCE | SFT, cramped_at="inside its backward", warned=1),
    UNASKED: Case(
        ONCE | {"shards_base": None},
        model="large",
        free_bytes=1_500_000,
        cramped_at="inside its backward",
        warned=1,
    ),
}
"""Nine pairs, four a step: in each epoch's last step one worker has nothing to do."""


def make_case(folder: Path, model: Path, case: Case, **changes: Any) -> None:
    folder.mkdir(parents=True)
    training = write_preferences(folder / "nine.jsonl", preference_rows(9))
    validation = write_preferences(folder / "validation.jsonl", preference_rows(5, first=30))
    limits = {"max_kl": 1e-3, "min_chosen_logp_ratio": None, "max_valid_loss_rise": None}
    guards = GuardParameters.model_validate(limits | {"patience": 1, "action": "warn"})
    files = {"training_file": training, "validation_file": validation, "guards": guards, "evaluate_every_steps": 2}
    make_run(folder, model, **{**files, "shards_base": True, **case.changes, **changes})


def save_gemma2(folder: Path) -> None:
    """Its soft caps are refused by packed attention inside the first layer."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = Gemma2Config(vocab_size=len(tokenizer), head_dim=8, **SIZES)
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_large_llama(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 512, "num_hidden_layers": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


MODELS: dict[str, Callable[[Path], Any]] = {
    "llama": save_tiny_model,
    "qwen3": lambda folder: save_tiny_model(folder, architecture="qwen3"),
    "gemma2": save_gemma2,
    "large": save_large_llama,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `NAME/one` and `NAME/two` of all cases; `resumed` goes on where `lost` was before its third step; in
    `hopeless` a worker has no memory for any pair."""
    parent = tmp_path_factory.mktemp("sharded")
    for name, save in MODELS.items():
        save(parent / "models" / name)
    planned = []
    for name, case in CASES.items():
        model = parent / "models" / case.model
        make_case(parent / name / "one", model, case, workers=1, shards_base=False)
        make_case(parent / name / "two", model, case, workers=2)
        planned.append(Planned(str(parent / name / "two"), case.cramped_at, free_bytes=case.free_bytes))
    kept, resumed = Case({"checkpoint_every_steps": 2} | lora(dropout=0.2)), {"resume_from": (str(parent / "lost"),)}
    for name, changes, lost_at in (("unbroken", {}, None), ("lost", {}, 3), ("resumed", resumed, None)):
        make_case(parent / name, parent / "models" / "llama", kept, workers=2, **changes)
        planned.append(Planned(str(parent / name), lost_at=lost_at))
    make_case(parent / "hopeless", parent / "models" / "llama", Case(), workers=2)
    planned.insert(0, Planned(str(parent / "hopeless"), "anywhere", room_tokens=10))
    write_plan(parent, planned)
    ended = run_on_two(parent, timeout_s=400)
    assert ended.returncode == 0, ended.stderr
    return parent


@pytest.mark.parametrize("name", CASES)
def test_shares_give_the_numbers_and_the_adapter_of_the_whole(runs: Path, name: str) -> None:
    one, two = runs / name / "one", runs / name / "two"
    run(str(one))
    assert Outcome.model_validate_json((two / OUTCOME).read_bytes()).status == "succeeded"
    ours, theirs = ({event.key: event for event in read_events(folder)} for folder in (one, two))
    assert "sharded" in theirs
    numbered = [key for key in ours if key.startswith(("step:", "sft:", "guard:"))]
    assert len(numbered) >= 3
    assert numbered == [key for key in theirs if key in numbered]
    for key in numbered:
        for numbers in ("step_metrics", "evaluation", "sft_metrics"):
            expected = without_time(getattr(ours[key], numbers))
            assert without_time(getattr(theirs[key], numbers)) == pytest.approx(expected, rel=1e-4, abs=1e-5), key
    assert losses(two) == pytest.approx(losses(one), rel=1e-5, abs=1e-5)
    weights = [load_file(folder / ADAPTER / "adapter_model.safetensors") for folder in (one, two)]
    for weight_name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][weight_name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.cramped_at])
def test_a_worker_that_runs_out_of_memory_keeps_step_until_all_make_smaller_passes(runs: Path, name: str) -> None:
    told = [event.message for event in read_events(runs / name / "two") if event.key.startswith("memory:")]
    assert len(told) == CASES[name].warned, told
    assert all(message.startswith("Out of memory at ") for message in told)


def test_a_base_that_fits_no_device_is_sharded_unasked_and_its_layers_are_checkpointed(runs: Path) -> None:
    told = [event.key for event in read_events(runs / UNASKED / "two")]
    assert told[:3] == ["started", "sharded", "checkpointing"]


def test_a_worker_without_memory_for_any_pass_ends_the_run_for_all(runs: Path) -> None:
    error = Outcome.model_validate_json((runs / "hopeless" / OUTCOME).read_bytes()).error
    assert error is not None
    assert error.code == "not_enough_memory"


def test_a_lost_run_goes_on_to_the_last_bit(runs: Path) -> None:
    unbroken, resumed = runs / "unbroken", runs / "resumed"
    assert list(losses(resumed)) == [3, 4, 5, 6]
    assert losses(resumed).items() <= losses(unbroken).items()
    weights = [load_file(folder / ADAPTER / "adapter_model.safetensors") for folder in (unbroken, resumed)]
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[0].items())


def test_each_worker_holds_about_half_of_a_large_base(runs: Path) -> None:
    (told,) = [event.message for event in read_events(runs / UNASKED / "two") if event.key == "sharded"]
    found = re.fullmatch(r"The base model is sharded over 2 workers: .* ([\d.]+) of its ([\d.]+) MB", told)
    assert found is not None, told
    assert float(found[1]) / float(found[2]) == pytest.approx(0.5, abs=0.05)
