"""The policy: a frozen base with one LoRA adapter that learns; the reference is the same base with that adapter off.

Training that starts from an `ft:` model adds a frozen copy of its adapter, since there "off" would be another model.
So does training that estimates its reference first, by SFT.
PEFT's own `disable_adapter` and `set_adapter` do the switching.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from schemas.fine_tuning import ReferenceType
from schemas.run_spec import LoraParameters
from trainers.errors import InvalidLoraTargets, UnusableAdapter
from trainers.models.sharded_base import ShardedBase
from trainers.naming import first_names
from trainers.seeding import seed_adapter_init

LEARNING = "default"
FROZEN = "reference"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
APPLIED_SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora")
"""What an adapter's weights do follows from these, too. PEFT makes the patterns itself, where it fuses experts."""
CARRIED_SETTINGS = (*APPLIED_SETTINGS, "target_modules", "target_parameters", "exclude_modules")
"""What an initial adapter's config may tell us; it is a user's file, and PEFT has settings that name things to load."""
MODULES_NAMED = 10
"""Of a model's layers, which may be hundreds."""
INITS_OF_THE_SAME_BASE = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""PEFT's `init_lora_weights` that leave the base as it was. Others put what they take out of it into the adapter."""
ADAPTER_MARK = "lora_"
"""What PEFT tells an adapter's own weights by."""


@dataclass(frozen=True, slots=True)
class InitialAdapter:
    config: LoraConfig
    weights: dict[str, Tensor]

    def parameters(self, *, dropout: float) -> LoraParameters:
        """What is trained on from here: the adapter keeps its own shape, and dropout is the job's."""
        config = self.config
        modules = (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules
        return LoraParameters(
            r=config.r,
            alpha=config.lora_alpha,
            dropout=dropout,
            target_modules=tuple(sorted({*(modules or ()), *(config.target_parameters or ())})),
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
        )

    def differences(self, told: LoraParameters) -> list[str]:
        """Name what the adapter has otherwise than a spec tells, by the names that a job has for it."""
        own = self.parameters(dropout=told.dropout)
        values = [(name, getattr(own, name), getattr(told, name)) for name in ("r", "alpha", "use_rslora", "use_dora")]
        found = [f"{name} is {ours}, not {theirs}" for name, ours, theirs in values if ours != theirs]
        # Which layers "all-linear" means, and what experts' names become where they are fused, PEFT alone knows.
        are_comparable = told.target_modules != "all-linear" and not self.config.target_parameters
        if are_comparable and set(own.target_modules) != set(told.target_modules):
            ours, theirs = (first_names(each.target_modules, MODULES_NAMED) for each in (own, told))
            found.append(f"target_modules is {ours}, not {theirs}")
        return found


@dataclass(frozen=True, slots=True)
class Policy:
    model: PeftModel
    reference_adapter: str | None
    """None: the reference is the bare base."""
    starts_at_reference: bool
    """Before the first step the policy equals its reference."""
    reference_is_estimated: bool = False
    """The frozen adapter is what this job's SFT made of it."""
    sharded: ShardedBase | None = None
    """None: each worker has the whole base."""
    _dropping: tuple[nn.Module, ...] = field(init=False, repr=False)
    """Collected once: a checkpointed layer asks for them in each pass, and a model has thousands of modules."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dropping", tuple(_dropping_modules(self.model)))

    def parameters(self) -> list[Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def causal_lm(self) -> PreTrainedModel:
        """The base model with the adapter's layers in it."""
        return cast(PreTrainedModel, self.model.get_base_model())

    def adapted_parameter_bytes(self) -> int:
        """Of the base's weights that no linear layer holds, as experts', and that are adapted all the same."""
        wrappers = [module for module in self.model.modules() if isinstance(module, ParamWrapper)]
        return sum(wrapper.get_param().nbytes for wrapper in wrappers)  # type: ignore[no-untyped-call]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Be the reference while the context lasts. Call under `no_grad`, dropout off."""
        if self.reference_adapter is None:
            with self.model.disable_adapter():
                yield
            return
        self.model.set_adapter(self.reference_adapter, inference_mode=True)
        try:
            yield
        finally:
            self.model.set_adapter(LEARNING)

    @contextmanager
    def with_dropout(self) -> Iterator[None]:
        """Drop out in the adapter alone: TRL, too, trains with the base's dropout off."""
        for module in self._dropping:
            module.training = True
        try:
            yield
        finally:
            for module in self._dropping:
                module.training = False

    @property
    def is_dropping_out(self) -> bool:
        return any(module.training for module in self._dropping)

    def adapter_weights(self) -> dict[str, Tensor]:
        return _weights(self.model, adapter=LEARNING)

    def reference_sha256(self) -> str | None:
        """Of the frozen adapter's weights and of what scales them; None: the reference is the bare base."""
        if self.reference_adapter is None:
            return None
        config = self.model.peft_config[self.reference_adapter].to_dict()
        settings = json.dumps({name: config[name] for name in APPLIED_SETTINGS}, sort_keys=True)
        weights = save(_weights(self.model, adapter=self.reference_adapter))
        return hashlib.sha256(settings.encode() + weights).hexdigest()

    def load_adapter_weights(self, weights: dict[str, Tensor]) -> None:
        _load_weights(self.model, weights, adapter=LEARNING)

    def reference_weights(self) -> dict[str, Tensor]:
        return _weights(self.model, adapter=FROZEN)

    def load_reference_weights(self, weights: dict[str, Tensor]) -> None:
        _load_weights(self.model, weights, adapter=FROZEN)

    def freeze_as_reference(self) -> None:
        """Make the frozen adapter what the learning one is now."""
        self.load_reference_weights(self.adapter_weights())


def add_lora(
    model: PreTrainedModel, lora: LoraParameters, *, initial: InitialAdapter | None, reference: ReferenceType, seed: int
) -> Policy:
    """Add the adapter that learns: a fresh one, or the initial one with the job's dropout.

    Raises: InvalidLoraTargets, UnusableAdapter.
    """
    config = _fresh_config(model, lora) if initial is None else initial.config
    config.lora_dropout = lora.dropout
    # GPT-2 keeps its weights transposed; PEFT wants to be told.
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
    seed_adapter_init(seed)
    try:
        policy = get_peft_model(model, config, adapter_name=LEARNING)
    except ValueError as reason:  # PEFT's word for layers that it cannot adapt
        raise InvalidLoraTargets(f"these layers cannot be adapted: {reason}") from reason
    policy.eval()
    if initial is not None:
        _load_weights(policy, initial.weights, adapter=LEARNING)
    is_estimated = reference == "sft"
    if reference == "base" or (initial is None and not is_estimated):
        return Policy(policy, reference_adapter=None, starts_at_reference=initial is None)
    policy.add_adapter(FROZEN, config)
    _load_weights(policy, _weights(policy, adapter=LEARNING), adapter=FROZEN)
    policy.set_adapter(LEARNING)
    policy.eval()
    return Policy(policy, FROZEN, starts_at_reference=True, reference_is_estimated=is_estimated)


def read_adapter(config_json: bytes, weights: bytes, *, sha256: str) -> InitialAdapter:
    """Check and read an adapter that an earlier job wrote. Raises: UnusableAdapter."""
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise UnusableAdapter(f"the initial adapter's weights have the sha256 {found}, not {sha256}; train it again")
    try:
        settings = json.loads(config_json)
        tensors = load(weights)
    except (ValueError, SafetensorError) as reason:
        raise UnusableAdapter(f"the initial adapter cannot be read: {reason}") from reason
    if settings.get("peft_type") != "LORA":
        raise UnusableAdapter(
            f"the initial adapter is of the type {settings.get('peft_type')!r}; start from a LoRA adapter"
        )
    _refuse_changed_base(settings.get("init_lora_weights"))
    _refuse_base_weights(tensors)
    carried = {name: settings[name] for name in CARRIED_SETTINGS if name in settings}
    return InitialAdapter(LoraConfig(task_type="CAUSAL_LM", **carried), tensors)


def _refuse_changed_base(init: object) -> None:
    """Such an adapter adds to a base of which its first weights were subtracted, and we have the whole one.

    PEFT converts those of PiSSA (arXiv:2404.02948), OLoRA, CorDA and LoRA-GA; LoftQ's, whose base was quantised, not.
    """
    if init not in INITS_OF_THE_SAME_BASE:
        raise UnusableAdapter(
            f'the initial adapter was made with init_lora_weights="{init}", which changes the base that it belongs to; '
            "convert it by PEFT's save_pretrained(path_initial_model_for_weight_conversion=...), or merge it into its "
            "base and start from the merged model"
        )


def _refuse_base_weights(tensors: dict[str, Tensor]) -> None:
    """PEFT loads them into the frozen base: the reference is then another model, and the result lacks them."""
    strange = sorted(name for name in tensors if ADAPTER_MARK not in name)
    if strange:
        raise UnusableAdapter(
            f"the initial adapter carries weights of the model itself: {first_names(strange, MODULES_NAMED)}; merge it "
            "into its model and start from the merged one, or make it without PEFT's modules_to_save, with "
            'bias="none" and, where it adapts embeddings, saved with save_embedding_layers=False'
        )


def _dropping_modules(model: PeftModel) -> list[nn.Module]:
    """DoRA asks the layer itself, plain LoRA its dropout alone; a layer's own flag changes nothing in its base."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [*layers, *(dropout for layer in layers for dropout in layer.lora_dropout.values())]


def _fresh_config(model: PreTrainedModel, lora: LoraParameters) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=_resolve_targets(model, lora),
        exclude_modules=_excluded(model, lora),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )


def _resolve_targets(model: PreTrainedModel, lora: LoraParameters) -> str | list[str]:
    if lora.target_modules == "all-linear":
        return "all-linear"
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = {
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    }.difference(_linear_by_name_alone(model))
    known = sorted({name.rpartition(".")[2] for name in linear})
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise InvalidLoraTargets(f'the model has no linear layer named "{target}"; it has {", ".join(known)}')
    return list(lora.target_modules)


def _excluded(model: PreTrainedModel, lora: LoraParameters) -> list[str] | None:
    """PEFT warns of an exclusion that excludes nothing."""
    return (_linear_by_name_alone(model) or None) if lora.target_modules == "all-linear" else None


def _linear_by_name_alone(model: PreTrainedModel) -> list[str]:
    """Name the subclasses of a linear layer to whose output no adapter can be added: Llama 4's router returns a tuple.

    One of each of the architecture's own classes is tried; quantised ones are PEFT's to know.
    """
    own = {name: module for name, module in model.named_modules() if _is_of_the_architecture(module)}
    kinds = {type(module): module for module in own.values()}
    strange = {kind for kind, module in kinds.items() if not _returns_a_product(module)}
    return [name for name, module in own.items() if type(module) in strange]


def _is_of_the_architecture(module: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(module, nn.Linear) and type(module).__module__.startswith("transformers.models.")


@torch.no_grad()
def _returns_a_product(layer: nn.Linear) -> bool:
    try:
        product: object = layer(layer.weight.new_zeros(1, layer.in_features))
    except RuntimeError:  # torch's word for shapes: DeepSeek-V4 has a layer that takes groups of rows
        return False
    return isinstance(product, Tensor) and product.shape == (1, layer.out_features)


def _weights(model: PeftModel, *, adapter: str) -> dict[str, Tensor]:
    weights = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    return {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}


def _load_weights(model: PeftModel, weights: dict[str, Tensor], *, adapter: str) -> None:
    try:
        # PEFT writes the type as the string "namedtuple", which no checker can read.
        result: Any = set_peft_model_state_dict(model, weights, adapter_name=adapter)
    except RuntimeError as reason:  # torch's word for shapes that differ
        raise UnusableAdapter(f"the adapter does not fit the model: {reason}") from reason
    missing = [name for name in result.missing_keys if f".{adapter}." in name and ADAPTER_MARK in name]
    strange = missing + list(result.unexpected_keys)
    if strange:
        raise UnusableAdapter(f"the adapter does not fit the model: {strange[0]} is missing in one of them")
