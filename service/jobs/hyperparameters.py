"""Where `"auto"` dies: a job's options, the count of its pairs and its model's registry entry become numbers.

Pure. The choices follow what DPO runs of these sizes need: enough optimizer steps for the loss to move on a small file,
one pass over a large one.
"""

import math
from dataclasses import dataclass

from schemas.fine_tuning import DpoHyperparameters, DpoOptions, EvaluationOptions, Precision, ReferenceOptions
from schemas.run_spec import DpoParameters, LoraParameters, SftParameters
from service.registry import BaseModelEntry

DEFAULT_BETA = 0.1
DEFAULT_ALPHA_DIVERGENCE = 0.5
DEFAULT_DISCOPOP_TAU = 0.05
STEPS_AN_EPOCH = 64
"""Aimed at by the automatic batch size, within its bounds."""
SMALLEST_AUTO_BATCH = 4
LARGEST_AUTO_BATCH = 32
EPOCHS_BELOW_PAIRS = ((500, 3), (2_000, 2))
"""Automatic epochs of files with fewer pairs; a larger file is read once."""
SFT_EPOCHS = 1
SFT_RATE_FACTOR = 4
"""Times the model's base rate, which is DPO's: LoRA learns from demonstrations at 1e-4 to 2e-4 (arXiv:2305.14314)."""
LONGEST_AUTO_LENGTH = 2_048
EVALUATIONS = 10
EVALUATED_PER_TRAINED = 0.5
"""Pairs: to evaluate one costs about half of what it costs to train on it, so a fifth of a run goes to evaluations."""
CHECKPOINT_STEPS_MIN = 5
CHECKPOINT_STEPS_MAX = 100
"""A lost worker costs at most the steps since the last checkpoint."""


@dataclass(frozen=True, slots=True)
class ResolvedHyperparameters:
    dpo: DpoParameters
    lora: LoraParameters
    sft: SftParameters | None
    precision: Precision
    evaluate_every_steps: int
    checkpoint_every_steps: int
    method: DpoOptions
    """The options with each "auto" replaced: what the job shows from now on (`jobs.resolved_method`)."""


def resolve(
    options: DpoOptions, *, pairs: int, validation_pairs: int = 0, model: BaseModelEntry
) -> ResolvedHyperparameters:
    """`validation_pairs` are asked for an automatic `every_steps` alone."""
    dpo = _resolve_dpo(options.hyperparameters, pairs=pairs, model=model)
    sft = _resolve_sft(options.reference, model=model)
    precision = options.precision or model.precision
    total_steps = count_steps(pairs=pairs, batch_size=dpo.batch_size, n_epochs=dpo.n_epochs)
    tenth = math.ceil(total_steps / EVALUATIONS)
    every_steps = options.evaluation.every_steps
    affordable = math.ceil(validation_pairs / (EVALUATED_PER_TRAINED * dpo.batch_size))
    epoch = count_steps(pairs=pairs, batch_size=dpo.batch_size, n_epochs=1)
    evaluate_every_steps = max(tenth, min(affordable, epoch)) if every_steps == "auto" else every_steps
    return ResolvedHyperparameters(
        dpo=dpo,
        lora=LoraParameters(**options.lora.model_dump()),
        sft=sft,
        precision=precision,
        evaluate_every_steps=evaluate_every_steps,
        checkpoint_every_steps=min(max(tenth, CHECKPOINT_STEPS_MIN), CHECKPOINT_STEPS_MAX),
        method=_with_numbers(options, dpo, sft, model, precision=precision, evaluate_every_steps=evaluate_every_steps),
    )


def count_steps(*, pairs: int, batch_size: int, n_epochs: int) -> int:
    """Optimizer steps of a whole job; the last batch of an epoch may be a small one."""
    return math.ceil(pairs / batch_size) * n_epochs


def resolve_learning_rate(chosen: DpoHyperparameters, *, base_learning_rate: float) -> float:
    """The explicit rate, else the model's base rate times the multiplier."""
    if chosen.learning_rate != "auto":
        return chosen.learning_rate
    multiplier = 1.0 if chosen.learning_rate_multiplier == "auto" else chosen.learning_rate_multiplier
    return base_learning_rate * multiplier


def _resolve_dpo(chosen: DpoHyperparameters, *, pairs: int, model: BaseModelEntry) -> DpoParameters:
    auto_length = min(model.max_length, LONGEST_AUTO_LENGTH)
    return DpoParameters(
        beta=DEFAULT_BETA if chosen.beta == "auto" else chosen.beta,
        loss_type=chosen.loss_type,
        label_smoothing=chosen.label_smoothing,
        f_divergence=chosen.f_divergence,
        f_alpha_divergence_coef=_or_default(chosen.f_alpha_divergence_coef, DEFAULT_ALPHA_DIVERGENCE),
        ld_alpha=chosen.ld_alpha,
        use_weighting=chosen.use_weighting,
        discopop_tau=_or_default(chosen.discopop_tau, DEFAULT_DISCOPOP_TAU),
        max_length=auto_length if chosen.max_length == "auto" else chosen.max_length,
        batch_size=_auto_batch_size(pairs) if chosen.batch_size == "auto" else chosen.batch_size,
        n_epochs=_auto_epochs(pairs) if chosen.n_epochs == "auto" else chosen.n_epochs,
        learning_rate=resolve_learning_rate(chosen, base_learning_rate=model.base_learning_rate),
        lr_scheduler=chosen.lr_scheduler,
        warmup_ratio=chosen.warmup_ratio,
        weight_decay=chosen.weight_decay,
        max_grad_norm=chosen.max_grad_norm,
    )


def _resolve_sft(chosen: ReferenceOptions, *, model: BaseModelEntry) -> SftParameters | None:
    if chosen.type != "sft":
        return None
    auto_rate = min(1.0, SFT_RATE_FACTOR * model.base_learning_rate)
    return SftParameters(
        n_epochs=SFT_EPOCHS if chosen.n_epochs in (None, "auto") else chosen.n_epochs,
        learning_rate=auto_rate if chosen.learning_rate in (None, "auto") else chosen.learning_rate,
    )


def _or_default(chosen: float | None, default: float) -> float:
    return default if chosen is None else chosen


def _auto_batch_size(pairs: int) -> int:
    """The power of two nearest below `pairs / STEPS_AN_EPOCH`, within bounds and never more than there are pairs."""
    aimed = max(1, pairs // STEPS_AN_EPOCH)
    power_of_two = 1 << (aimed.bit_length() - 1)
    return min(max(power_of_two, SMALLEST_AUTO_BATCH), LARGEST_AUTO_BATCH, max(pairs, 1))


def _auto_epochs(pairs: int) -> int:
    return next((epochs for below, epochs in EPOCHS_BELOW_PAIRS if pairs < below), 1)


def _with_numbers(
    options: DpoOptions,
    dpo: DpoParameters,
    sft: SftParameters | None,
    model: BaseModelEntry,
    *,
    precision: Precision,
    evaluate_every_steps: int,
) -> DpoOptions:
    numbers = {
        "beta": dpo.beta,
        "batch_size": dpo.batch_size,
        "n_epochs": dpo.n_epochs,
        "learning_rate": dpo.learning_rate,
        "learning_rate_multiplier": _significant(dpo.learning_rate / model.base_learning_rate),
        "max_length": dpo.max_length,
        # Shown where they are read, so that what a job shows can be sent again.
        "f_alpha_divergence_coef": dpo.f_alpha_divergence_coef if dpo.f_divergence == "alpha_divergence" else None,
        "discopop_tau": dpo.discopop_tau if "discopop" in dpo.loss_weights else None,
    }
    return options.model_copy(
        update={
            "hyperparameters": options.hyperparameters.model_copy(update=numbers),
            "reference": options.reference.model_copy(update={} if sft is None else sft.model_dump()),
            "evaluation": EvaluationOptions(every_steps=evaluate_every_steps),
            "precision": precision,
        }
    )


def _significant(value: float) -> float:
    """Six digits: 5e-5 / 1e-5 shows as 5.0 and not as 5.000000000000001."""
    return float(f"{value:.6g}")
