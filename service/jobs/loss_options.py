"""Refuse options of the loss that have no meaning together: `schemas.loss_options`, and what only an API is sent.

A trainer is told every number, so that an option left out and one that nothing reads look the same to it.
"""

from schemas.fine_tuning import DpoHyperparameters
from schemas.loss_options import named, refused_option
from service.jobs.job_errors import InvalidJob

HYPERPARAMETERS = "method.dpo.hyperparameters"
SMALLEST_DIVISOR = 1e-6
"""Its square, times a weight, stays far from float32's end. No bound of the schema, by which stored jobs are read, too:
earlier versions took less."""


def check_loss(chosen: DpoHyperparameters) -> None:
    """Raises: InvalidJob."""
    losses = (chosen.loss_type,) if isinstance(chosen.loss_type, str) else tuple(chosen.loss_type)
    _check_divisors(chosen)
    refused = refused_option(
        losses,
        label_smoothing=chosen.label_smoothing,
        f_divergence=chosen.f_divergence,
        use_weighting=chosen.use_weighting,
        ld_alpha=chosen.ld_alpha,
    )
    if refused is not None:
        raise _refused(refused.name, refused.why)
    if chosen.f_alpha_divergence_coef is not None and chosen.f_divergence != "alpha_divergence":
        raise _refused(
            "f_alpha_divergence_coef",
            f'is {chosen.f_alpha_divergence_coef} and f_divergence is "{chosen.f_divergence}", which does not read it; '
            'leave f_alpha_divergence_coef out, or set f_divergence to "alpha_divergence"',
        )
    if chosen.discopop_tau is not None and "discopop" not in losses:
        raise _refused(
            "discopop_tau",
            f"is {chosen.discopop_tau} and loss_type is {named(losses)}, which does not read it; "
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


def _refused(name: str, why: str) -> InvalidJob:
    return InvalidJob(f"{name} {why}", param=f"{HYPERPARAMETERS}.{name}")
