"""`"auto"` becomes numbers, by tables."""

from typing import Literal

import pytest

from schemas.fine_tuning import DpoHyperparameters, DpoOptions, EvaluationOptions, LoraOptions, ReferenceOptions
from schemas.run_spec import SftParameters
from service.jobs.hyperparameters import count_steps, resolve
from service.jobs.loss_options import check_loss
from service.registry import BaseModelEntry

MODEL = BaseModelEntry(uri="/models/m", max_length=8192, base_learning_rate=5e-5, precision="bf16", gpus=0)


def options(**hyperparameters: object) -> DpoOptions:
    return DpoOptions(hyperparameters=DpoHyperparameters.model_validate(hyperparameters))


@pytest.mark.parametrize(
    ("pairs", "batch_size", "n_epochs", "evaluate_every", "checkpoint_every"),
    [
        pytest.param(1, 1, 3, 1, 5, id="one pair"),
        pytest.param(3, 3, 3, 1, 5, id="fewer pairs than the smallest batch"),
        pytest.param(64, 4, 3, 5, 5, id="a demo's file"),
        pytest.param(499, 4, 3, 38, 38, id="just below two epochs"),
        pytest.param(500, 4, 2, 25, 25, id="two epochs"),
        pytest.param(1_000, 8, 2, 25, 25, id="a power of two, rounded down"),
        pytest.param(2_000, 16, 1, 13, 13, id="one epoch"),
        pytest.param(100_000, 32, 1, 313, 100, id="a large file keeps its checkpoints close"),
    ],
)
def test_automatic_sizes_follow_the_pairs(
    pairs: int, batch_size: int, n_epochs: int, evaluate_every: int, checkpoint_every: int
) -> None:
    resolved = resolve(DpoOptions(), pairs=pairs, model=MODEL)
    assert (resolved.dpo.batch_size, resolved.dpo.n_epochs) == (batch_size, n_epochs)
    assert (resolved.evaluate_every_steps, resolved.checkpoint_every_steps) == (evaluate_every, checkpoint_every)


@pytest.mark.parametrize(
    ("pairs", "validation_pairs", "evaluate_every"),
    [
        pytest.param(1_000, 0, 25, id="nothing to evaluate"),
        pytest.param(1_000, 100, 25, id="a tenth held out: each tenth of the run"),
        pytest.param(1_000, 250, 63, id="a fifth held out: four times in two epochs"),
        pytest.param(1_000, 5_000, 125, id="more held out than trained on: once an epoch"),
        pytest.param(100_000, 5_000, 313, id="one epoch"),
    ],
)
def test_a_large_validation_file_is_evaluated_less_often(
    pairs: int, validation_pairs: int, evaluate_every: int
) -> None:
    resolved = resolve(DpoOptions(), pairs=pairs, validation_pairs=validation_pairs, model=MODEL)
    assert resolved.evaluate_every_steps == resolved.method.evaluation.every_steps == evaluate_every


@pytest.mark.parametrize(
    ("given", "learning_rate", "multiplier"),
    [
        pytest.param({}, 5e-5, 1.0, id="auto: the model's base rate"),
        pytest.param({"learning_rate_multiplier": 0.5}, 2.5e-5, 0.5, id="multiplier"),
        pytest.param({"learning_rate": 1e-4}, 1e-4, 2.0, id="explicit rate"),
        pytest.param({"learning_rate": 1e-4, "learning_rate_multiplier": 0.5}, 1e-4, 2.0, id="explicit rate wins"),
    ],
)
def test_learning_rate(given: dict[str, float], learning_rate: float, multiplier: float) -> None:
    resolved = resolve(options(**given), pairs=100, model=MODEL)
    assert resolved.dpo.learning_rate == pytest.approx(learning_rate)
    assert resolved.method.hyperparameters.learning_rate_multiplier == multiplier


@pytest.mark.parametrize(
    ("given", "n_epochs", "learning_rate"),
    [
        pytest.param({}, 1, 2e-4, id="nothing said"),
        pytest.param({"n_epochs": "auto", "learning_rate": "auto"}, 1, 2e-4, id="auto"),
        pytest.param({"n_epochs": 3, "learning_rate": 1e-4}, 3, 1e-4, id="numbers"),
    ],
)
def test_the_phase_that_estimates_the_reference(given: dict[str, object], n_epochs: int, learning_rate: float) -> None:
    asked = DpoOptions(reference=ReferenceOptions.model_validate({"type": "sft", **given}))
    resolved = resolve(asked, pairs=64, model=MODEL)
    assert resolved.sft == SftParameters(n_epochs=n_epochs, learning_rate=learning_rate)
    shown = resolved.method.reference
    assert (shown.type, shown.n_epochs, shown.learning_rate) == ("sft", n_epochs, learning_rate)
    again = DpoOptions.model_validate_json(resolved.method.model_dump_json())
    assert resolve(again, pairs=64, model=MODEL).sft == resolved.sft


def test_a_model_with_a_high_base_rate_has_a_rate_that_can_be_sent_again() -> None:
    hot = MODEL.model_copy(update={"base_learning_rate": 0.5})
    resolved = resolve(DpoOptions(reference=ReferenceOptions(type="sft")), pairs=64, model=hot)
    assert resolved.sft is not None
    assert resolved.sft.learning_rate == 1.0


@pytest.mark.parametrize("kind", ["initial", "base"])
def test_other_references_train_nothing(kind: Literal["initial", "base"]) -> None:
    resolved = resolve(DpoOptions(reference=ReferenceOptions(type=kind)), pairs=64, model=MODEL)
    assert resolved.sft is None
    assert resolved.method.reference == ReferenceOptions(type=kind, n_epochs=None, learning_rate=None)


@pytest.mark.parametrize(("model_reads", "max_length"), [(512, 512), (8192, 2048)])
def test_automatic_length_fits_the_model(model_reads: int, max_length: int) -> None:
    model = MODEL.model_copy(update={"max_length": model_reads})
    assert resolve(DpoOptions(), pairs=10, model=model).dpo.max_length == max_length


def test_what_the_user_chose_is_kept() -> None:
    chosen = {
        "beta": 0.5,
        "batch_size": 7,
        "n_epochs": 2,
        "learning_rate": 1e-5,
        "loss_type": "ipo",
        "max_length": 100,
        "warmup_ratio": 0.2,
        "lr_scheduler": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 2.0,
    }
    asked = DpoOptions(
        hyperparameters=DpoHyperparameters.model_validate(chosen),
        lora=LoraOptions(r=8, target_modules=("q_proj", "v_proj")),
        evaluation=EvaluationOptions(every_steps=3),
        precision="fp32",
    )
    resolved = resolve(asked, pairs=70, model=MODEL)
    unchosen = {
        "label_smoothing": 0.0,
        "f_divergence": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "ld_alpha": None,
        "use_weighting": False,
        "discopop_tau": 0.05,
    }
    assert resolved.dpo.model_dump() == chosen | unchosen
    assert resolved.lora.target_modules == ("q_proj", "v_proj")
    assert (resolved.precision, resolved.evaluate_every_steps) == ("fp32", 3)


def test_the_shown_method_holds_no_auto_and_can_be_sent_again() -> None:
    shown = resolve(DpoOptions(), pairs=200, model=MODEL).method
    assert "auto" not in shown.model_dump_json()
    again = DpoOptions.model_validate_json(shown.model_dump_json())
    assert resolve(again, pairs=200, model=MODEL).dpo == resolve(DpoOptions(), pairs=200, model=MODEL).dpo


LOSSES = [
    pytest.param({"loss_type": {"sigmoid": 0.8, "sft": 0.2}, "label_smoothing": 0.1}, {}, id="mixture"),
    pytest.param({"loss_type": "discopop"}, {"discopop_tau": 0.05}, id="discopop"),
    pytest.param({"loss_type": "discopop", "discopop_tau": 0.2}, {}, id="discopop, tau"),
    pytest.param({"f_divergence": "alpha_divergence"}, {"f_alpha_divergence_coef": 0.5}, id="alpha"),
    pytest.param({"f_divergence": "js_divergence"}, {"f_alpha_divergence_coef": None, "discopop_tau": None}, id="js"),
    pytest.param({"ld_alpha": 0.0, "use_weighting": True}, {}, id="LD-DPO and WPO"),
]


@pytest.mark.parametrize(("chosen", "resolved"), LOSSES)
def test_a_losss_options_are_shown_where_they_are_read(chosen: dict[str, object], resolved: dict[str, object]) -> None:
    numbers = resolve(options(**chosen), pairs=64, model=MODEL)
    shown = numbers.method.hyperparameters.model_dump()
    assert {name: shown[name] for name in chosen | resolved} == chosen | resolved
    check_loss(numbers.method.hyperparameters)
    assert resolve(numbers.method, pairs=64, model=MODEL).dpo == numbers.dpo


@pytest.mark.parametrize(("pairs", "steps"), [(8, 2), (9, 3), (1, 1)])
def test_a_small_last_batch_is_a_step(pairs: int, steps: int) -> None:
    assert count_steps(pairs=pairs, batch_size=4, n_epochs=1) == steps
