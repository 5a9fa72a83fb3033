"""Which options of the loss have a meaning together: what would do nothing, or has no definition, is refused.

The sets are TRL 1.16's, whose losses these are; `label_smoothing` also reaches `sigmoid`, as cDPO.
"""

from collections.abc import Collection

from schemas.fine_tuning import DpoHyperparameters, LossType
from service.jobs.job_errors import InvalidJob

HYPERPARAMETERS = "method.dpo.hyperparameters"
SMOOTHED: tuple[LossType, ...] = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
OF_THE_MARGIN: tuple[LossType, ...] = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")
"""A divergence's unknown normaliser cancels in the difference of both sides, which is all that these read."""
SORTING: tuple[LossType, ...] = ("aot", "aot_unpaired")
WITHOUT_REFERENCE: tuple[LossType, ...] = ("sft",)
"""Reads the chosen side's tokens alone."""
SMALLEST_DIVISOR = 1e-6
"""Its square, times a weight, stays far from float32's end. No bound of the schema, by which stored jobs are read, too:
earlier versions took less."""


def check_loss(chosen: DpoHyperparameters) -> None:
    """Raises: InvalidJob."""
    losses = (chosen.loss_type,) if isinstance(chosen.loss_type, str) else tuple(chosen.loss_type)
    _check_divisors(chosen)
    _check_label_smoothing(chosen, losses)
    _check_divergence(chosen, losses)
    _check_weighting(chosen, losses)
    if chosen.ld_alpha is not None and set(losses) <= set(WITHOUT_REFERENCE):
        raise _refused(
            "ld_alpha",
            f"is {chosen.ld_alpha} and loss_type is {_named(losses)}, in which every token counts once; "
            "leave ld_alpha out, or add a loss that compares both sides",
        )
    if chosen.discopop_tau is not None and "discopop" not in losses:
        raise _refused(
            "discopop_tau",
            f"is {chosen.discopop_tau} and loss_type is {_named(losses)}, which does not read it; "
            'leave discopop_tau out, or set loss_type to "discopop"',
        )


def _check_divisors(chosen: DpoHyperparameters) -> None:
    for name, value in (("beta", chosen.beta), ("discopop_tau", chosen.discopop_tau)):
        if isinstance(value, float) and value < SMALLEST_DIVISOR:
            raise _refused(
                name,
                f"is {value:g}, by which losses divide in float32, where it overflows; give {SMALLEST_DIVISOR:g} or "
                "more, or leave it out",
            )


def _check_label_smoothing(chosen: DpoHyperparameters, losses: Collection[LossType]) -> None:
    if chosen.label_smoothing > 0 and not set(losses) & set(SMOOTHED):
        raise _refused(
            "label_smoothing",
            f"is {chosen.label_smoothing} and loss_type is {_named(losses)}, which excludes it; "
            f"set label_smoothing to 0, or loss_type to one of {_named(SMOOTHED)}",
        )
    if chosen.label_smoothing == 0 and "exo_pair" in losses:
        raise _refused(
            "label_smoothing",
            f"is 0 and loss_type is {_named(losses)}: exo_pair takes its logarithm; give a small number, its authors "
            "recommend 0.001",
        )


def _check_divergence(chosen: DpoHyperparameters, losses: Collection[LossType]) -> None:
    name = chosen.f_divergence
    # `sft` has no divergence, but may stand beside losses that have one.
    without = set(losses) - set(OF_THE_MARGIN) - ({"sft"} if len(losses) > 1 else set())
    if name != "reverse_kl" and without:
        raise _refused(
            "f_divergence",
            f'is "{name}" and loss_type is {_named(losses)}: {_named(sorted(without))} is defined for "reverse_kl" '
            f"alone; leave f_divergence out, or take losses of {_named(OF_THE_MARGIN)}",
        )
    if chosen.f_alpha_divergence_coef is not None and name != "alpha_divergence":
        raise _refused(
            "f_alpha_divergence_coef",
            f'is {chosen.f_alpha_divergence_coef} and f_divergence is "{name}", which does not read it; '
            'leave f_alpha_divergence_coef out, or set f_divergence to "alpha_divergence"',
        )


def _check_weighting(chosen: DpoHyperparameters, losses: Collection[LossType]) -> None:
    if chosen.use_weighting and set(losses) & set(SORTING):
        raise _refused(
            "use_weighting",
            f"is true and loss_type is {_named(losses)}: aot sorts the pairs of a step, so no pair keeps a weight of "
            "its own; set use_weighting to false, or take another loss",
        )


def _refused(name: str, why: str) -> InvalidJob:
    return InvalidJob(f"{name} {why}", param=f"{HYPERPARAMETERS}.{name}")


def _named(losses: Collection[str]) -> str:
    return ", ".join(f'"{name}"' for name in losses)
