"""Pure checks of values against each other and against the model: each is fine alone, not all together."""

import json
import re

from schemas.fine_tuning import (
    CreateJobRequest,
    DpoHyperparameters,
    DpoOptions,
    GuardOptions,
    ReferenceOptions,
    ResourceOptions,
)
from service.jobs.hyperparameters import resolve_learning_rate
from service.jobs.job_errors import InvalidJob
from service.jobs.loss_options import HYPERPARAMETERS, check_loss
from service.jobs.resources import resolve_gpus
from service.nearest import shown
from service.registry import BaseModelEntry

SUFFIX = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def check_combinations(request: CreateJobRequest, entry: BaseModelEntry) -> None:
    """Raises: InvalidJob."""
    _check_suffix(request.suffix)
    _check_files(request)
    check_loss(request.method.dpo.hyperparameters)
    _check_reference(request.method.dpo.reference)
    _check_sizes(request.method.dpo.hyperparameters, entry)
    _check_guards(request.method.dpo.guards, request.validation_file)
    _check_resources(request.resources, entry)
    _check_quantization(request.method.dpo, request.resources, entry)
    _check_sharding(request.method.dpo, request.resources, entry)


def _check_suffix(suffix: str | None) -> None:
    if suffix is not None and not SUFFIX.fullmatch(suffix):
        # A colon would make `ft:MODEL:PROJECT:SUFFIX:ID` ambiguous.
        raise InvalidJob(f"suffix is {shown(suffix)}; use letters, digits and - _ . only", param="suffix")


def _check_files(request: CreateJobRequest) -> None:
    if request.validation_file == request.training_file:
        raise InvalidJob(
            f"validation_file is the training file, {shown(request.training_file)}; "
            "give pairs that are not trained on, or leave it out",
            param="validation_file",
        )


def _check_reference(chosen: ReferenceOptions) -> None:
    if chosen.type == "sft":
        return
    for name, value in (("n_epochs", chosen.n_epochs), ("learning_rate", chosen.learning_rate)):
        if value is not None:
            raise InvalidJob(
                f'reference.{name} is {json.dumps(value)} and reference.type is "{chosen.type}", which trains no '
                'reference; leave it out, or set the type to "sft"',
                param=f"method.dpo.reference.{name}",
            )


def _check_sizes(chosen: DpoHyperparameters, entry: BaseModelEntry) -> None:
    if chosen.max_length != "auto" and chosen.max_length > entry.max_length:
        raise InvalidJob(
            f"max_length is {chosen.max_length} and the model reads {entry.max_length} tokens; "
            f'give at most {entry.max_length}, or "auto"',
            param=f"{HYPERPARAMETERS}.max_length",
        )
    learning_rate = resolve_learning_rate(chosen, base_learning_rate=entry.base_learning_rate)
    if not 0 < learning_rate <= 1:
        raise InvalidJob(
            f"learning_rate_multiplier is {chosen.learning_rate_multiplier}, times the model's base rate "
            f"{entry.base_learning_rate}: a learning rate of {learning_rate}; it must lie in (0, 1]",
            param=f"{HYPERPARAMETERS}.learning_rate_multiplier",
        )


def _check_guards(guards: GuardOptions | None, validation_file: str | None) -> None:
    if guards is None:
        return
    if validation_file is None:
        raise InvalidJob(
            "guards watch the validation file and the job has none; give validation_file, or leave guards out",
            param="method.dpo.guards",
        )
    if guards.max_kl is guards.min_chosen_logp_ratio is guards.max_valid_loss_rise is None:
        raise InvalidJob(
            "guards has no limit to watch; give max_kl, min_chosen_logp_ratio or max_valid_loss_rise, "
            "or leave guards out",
            param="method.dpo.guards",
        )


def _check_resources(asked: ResourceOptions, entry: BaseModelEntry) -> None:
    gpus = resolve_gpus(asked, entry)
    if asked.workers is not None and gpus > 0:
        given = f"resources.gpus is {gpus}" if asked.gpus is not None else f"the model trains on {gpus} GPU(s)"
        raise InvalidJob(
            f"resources.workers is {asked.workers} and {given}: there is one worker a GPU; "
            "leave workers out, or set gpus to 0 to train on CPU",
            param="resources.workers",
        )


def _check_quantization(chosen: DpoOptions, asked: ResourceOptions, entry: BaseModelEntry) -> None:
    gpus = resolve_gpus(asked, entry)
    if chosen.quantization is not None and gpus == 0:
        given = "resources.gpus is 0" if asked.gpus is not None else "the model trains on CPU by the registry"
        raise InvalidJob(
            f'quantization is "{chosen.quantization}" and {given}: 4-bit weights need a GPU; '
            "set resources.gpus to 1 or more, or leave quantization out",
            param="method.dpo.quantization",
        )


def _check_sharding(chosen: DpoOptions, asked: ResourceOptions, entry: BaseModelEntry) -> None:
    if asked.sharding != "full":
        return
    gpus = resolve_gpus(asked, entry)
    if (gpus or asked.workers or 1) == 1:
        more = "set resources.gpus to 2 or more" if gpus else "set resources.workers to 2 or more"
        raise InvalidJob(
            f'resources.sharding is "full" and the job has one worker: there is nobody to share the base with; {more}, '
            "or leave sharding out",
            param="resources.sharding",
        )
    if chosen.quantization is not None:
        raise InvalidJob(
            f'resources.sharding is "full" and quantization is "{chosen.quantization}": 4-bit weights cannot be '
            "sharded; leave one of them out",
            param="resources.sharding",
        )
