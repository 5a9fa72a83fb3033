"""A spec that cannot be used is told in one sentence, by file and field, and exits as wrong usage does."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.run_layout import SPEC
from tests.tiny_runs import make_run
from trainers.errors import UnreadableSpec
from trainers.exit_codes import exit_code_of
from trainers.run_folder import RunFolder
from trainers.spec_file import read_spec

SMALLEST: dict[str, Any] = {
    "fine_tuned_model": "my-model",
    "model": {"id": "tiny", "uri": "/models/tiny"},
    "training_file": {"uri": "pairs.jsonl", "format": "openai", "sha256": "of the file"},
    "dpo": {
        "beta": 0.1,
        "loss_type": "sigmoid",
        "max_length": 1024,
        "batch_size": 4,
        "n_epochs": 1,
        "learning_rate": 5e-5,
        "lr_scheduler": "linear",
        "max_grad_norm": 1.0,
    },
    "lora": {"r": 16, "alpha": 32, "target_modules": "all-linear"},
    "precision": "fp32",
}
"""README's: what has no default."""


def test_a_spec_written_by_hand_may_leave_out_what_is_off(tmp_path: Path) -> None:
    (tmp_path / SPEC).write_text(json.dumps(SMALLEST))
    spec = read_spec(RunFolder(str(tmp_path)))
    assert (spec.run_id, spec.workers, spec.gpus_per_worker, spec.resume_from) == ("by-hand", 1, 0, ())
    assert (spec.validation_file, spec.guards, spec.initial_adapter, spec.reference) == (None, None, None, "initial")


NO_GUARD = {"max_kl": None, "min_chosen_logp_ratio": None, "max_valid_loss_rise": None, "patience": 1, "action": "stop"}


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("dpo", "beta", 0),
        ("dpo", "beta", -1),
        ("dpo", "loss_type", {}),
        ("dpo", "loss_type", {"sigmoid": -1}),
        ("dpo", "label_smoothing", 1.5),
        ("dpo", "label_smoothing", 0.5),
        ("dpo", "ld_alpha", 2),
        ("dpo", "discopop_tau", 0),
        ("dpo", "max_length", 1),
        ("dpo", "batch_size", 0),
        ("dpo", "n_epochs", 0),
        ("dpo", "learning_rate", -1e-3),
        ("dpo", "warmup_ratio", 2),
        ("dpo", "weight_decay", -0.1),
        ("dpo", "max_grad_norm", -1),
        ("lora", "r", 0),
        ("lora", "alpha", 0),
        ("lora", "dropout", 1),
        ("lora", "target_modules", []),
        ("guards", "max_kl", 0),
        ("guards", "min_chosen_logp_ratio", 0.1),
        ("guards", "max_valid_loss_rise", -0.1),
        ("guards", "patience", 0),
    ],
)
def test_a_number_that_cannot_be_trained_with_is_told_by_its_field(
    tmp_path: Path, part: str, field: str, value: object
) -> None:
    spec = SMALLEST | {"guards": NO_GUARD}
    (tmp_path / SPEC).write_text(json.dumps(spec | {part: spec[part] | {field: value}}))
    with pytest.raises(UnreadableSpec, match=rf"cannot be used: {part}\.{field}.*: "):
        read_spec(RunFolder(str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss_type": "exo_pair"}, "label_smoothing is 0 .* takes its logarithm"),
        ({"loss_type": {"sigmoid": 1, "exo_pair": 0.5}}, "label_smoothing is 0 .* takes its logarithm"),
        ({"loss_type": "nca_pair", "label_smoothing": 0.1}, "label_smoothing is 0.1 .* excludes it"),
        ({"loss_type": "aot", "f_divergence": "forward_kl"}, 'f_divergence is "forward_kl" .* "reverse_kl" alone'),
        ({"loss_type": "aot", "use_weighting": True}, "use_weighting is true .* sorts the pairs"),
        ({"loss_type": "sft", "ld_alpha": 0.5}, r"ld_alpha is 0\.5 .* every token counts once"),
    ],
)
def test_options_that_the_loss_does_not_read_are_told(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    (tmp_path / SPEC).write_text(json.dumps(SMALLEST | {"dpo": SMALLEST["dpo"] | options}))
    with pytest.raises(UnreadableSpec, match=rf"cannot be used: dpo: .*{told}"):
        read_spec(RunFolder(str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "Invalid JSON: EOF"),
        (json.dumps(SMALLEST | {"model": {"id": "tiny"}}), r"cannot be used: model\.uri is missing\. Correct it"),
        (json.dumps(SMALLEST | {"precision": "fp8"}), "precision: Input should be 'fp32' or 'bf16'"),
        (json.dumps(SMALLEST | {"colour": 1}), "colour is no field"),
        (json.dumps(SMALLEST | {"reference": "sft"}), 'sft is set when reference is "sft"'),
        ("{}", "fine_tuned_model is missing; model is missing; training_file is missing; dpo is missing"),
    ],
    ids=["no JSON", "a field missing", "a wrong value", "an unknown field", "fields at odds", "nothing"],
)
def test_a_spec_that_cannot_be_used_is_told_by_file_and_field(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / SPEC).write_text(content)
    with pytest.raises(UnreadableSpec, match=told) as raised:
        read_spec(RunFolder(str(tmp_path)))
    assert str(raised.value).startswith(f"{tmp_path / SPEC} cannot be used: ")


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_a_folder_without_a_spec_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableSpec, match=rf"nothing lies at {tmp_path / name / SPEC}: name a run folder"):
        read_spec(RunFolder(str(tmp_path / name)))


def test_a_spec_that_a_bucket_lacks_is_told(bucket: Any) -> None:
    with pytest.raises(UnreadableSpec, match="nothing lies at s3://"):
        read_spec(RunFolder(f"{bucket.url}/run"))


def fails_by(error: Exception) -> Any:
    def fail() -> int:
        raise error

    return fail


def test_a_spec_that_cannot_be_used_exits_as_wrong_usage_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(fails_by(UnreadableSpec("nothing lies there"))) == 2
    assert capsys.readouterr().err == "nothing lies there\n"


def test_a_store_that_fails_is_no_wrong_usage(tmp_path: Path) -> None:
    make_run(tmp_path, tmp_path)
    (tmp_path / SPEC).unlink()
    (tmp_path / SPEC).mkdir()
    assert exit_code_of(lambda: bool(read_spec(RunFolder(str(tmp_path))))) == 1
