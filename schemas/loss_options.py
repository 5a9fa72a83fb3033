"""Which options of the loss have a meaning together: what would do nothing, or has no definition, is refused.

The sets are TRL 1.16's, whose losses these are; `label_smoothing` also reaches `sigmoid`, as cDPO. One rule for what
the API is sent and for what a trainer is told.
"""

from collections.abc import Collection
from dataclasses import dataclass

from schemas.fine_tuning import FDivergence, LossType

SMOOTHED: tuple[LossType, ...] = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
OF_THE_MARGIN: tuple[LossType, ...] = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")
"""A divergence's unknown normaliser cancels in the difference of both sides, which is all that these read."""
SORTING: tuple[LossType, ...] = ("aot", "aot_unpaired")
WITHOUT_REFERENCE: tuple[LossType, ...] = ("sft",)
"""Reads the chosen side's tokens alone."""


@dataclass(frozen=True, slots=True)
class RefusedOption:
    name: str
    why: str
    """What comes after the name in a sentence."""


def refused_option(
    losses: Collection[LossType],
    *,
    label_smoothing: float,
    f_divergence: FDivergence,
    use_weighting: bool,
    ld_alpha: float | None,
) -> RefusedOption | None:
    """Return the first option that these losses do not read, or that one of them cannot do without."""
    return (
        _refused_smoothing(losses, label_smoothing)
        or _refused_divergence(losses, f_divergence)
        or _refused_weighting(losses, use_weighting=use_weighting)
        or _refused_tail(losses, ld_alpha)
    )


def named(losses: Collection[str]) -> str:
    return ", ".join(f'"{name}"' for name in losses)


def _refused_smoothing(losses: Collection[LossType], label_smoothing: float) -> RefusedOption | None:
    if label_smoothing > 0 and not set(losses) & set(SMOOTHED):
        return RefusedOption(
            "label_smoothing",
            f"is {label_smoothing} and loss_type is {named(losses)}, which excludes it; "
            f"set label_smoothing to 0, or loss_type to one of {named(SMOOTHED)}",
        )
    if label_smoothing == 0 and "exo_pair" in losses:
        return RefusedOption(
            "label_smoothing",
            f"is 0 and loss_type is {named(losses)}: exo_pair takes its logarithm; give a small number, its authors "
            "recommend 0.001",
        )
    return None


def _refused_divergence(losses: Collection[LossType], f_divergence: FDivergence) -> RefusedOption | None:
    # `sft` has no divergence, but may stand beside losses that have one.
    without = set(losses) - set(OF_THE_MARGIN) - ({"sft"} if len(losses) > 1 else set())
    if f_divergence == "reverse_kl" or not without:
        return None
    return RefusedOption(
        "f_divergence",
        f'is "{f_divergence}" and loss_type is {named(losses)}: {named(sorted(without))} is defined for "reverse_kl" '
        f"alone; leave f_divergence out, or take losses of {named(OF_THE_MARGIN)}",
    )


def _refused_weighting(losses: Collection[LossType], *, use_weighting: bool) -> RefusedOption | None:
    if not use_weighting or not set(losses) & set(SORTING):
        return None
    return RefusedOption(
        "use_weighting",
        f"is true and loss_type is {named(losses)}: aot sorts the pairs of a step, so no pair keeps a weight of "
        "its own; set use_weighting to false, or take another loss",
    )


def _refused_tail(losses: Collection[LossType], ld_alpha: float | None) -> RefusedOption | None:
    if ld_alpha is None or not set(losses) <= set(WITHOUT_REFERENCE):
        return None
    return RefusedOption(
        "ld_alpha",
        f"is {ld_alpha} and loss_type is {named(losses)}, in which every token counts once; "
        "leave ld_alpha out, or add a loss that compares both sides",
    )
